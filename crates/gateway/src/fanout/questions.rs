//! What the hub asks of workers: a few questions at once.

use std::sync::Arc;

use confab_protocol::error::{Code, Failure};
use confab_protocol::query::{
    Answer, EncodedEvent, LogRange, Query, ReadEvents, ReadRanges, UserMemberships,
};
use uuid::Uuid;

use super::{Done, FanoutLoop};
use crate::commands::Commands;
use crate::hub::{Ask, Read, Reader, Retry};

/// Ranges in one question: of a session with more the rest goes in another.
const RANGES: usize = 1000;

impl FanoutLoop {
    /// Asks for what a conversation's order lacks.
    pub(super) fn ask_for_gap(&mut self, read: Read) {
        self.metrics.question("read_events");
        let (commands, questions) = (self.commands.clone(), Arc::clone(&self.questions));
        self.tasks.spawn(async move {
            let _permit = questions.acquire_owned().await;
            let answer = read_events(&commands, &read).await;
            Done::Read(read, answer)
        });
    }

    /// Asks for all that one session lacks at once.
    pub(super) fn ask_for_ranges(&mut self, mut reads: Vec<Read>) {
        while !reads.is_empty() {
            let rest = reads.split_off(reads.len().min(RANGES));
            self.metrics.question("read_ranges");
            let (commands, questions) = (self.commands.clone(), Arc::clone(&self.questions));
            self.tasks.spawn(async move {
                let _permit = questions.acquire_owned().await;
                let answer = read_ranges(&commands, &reads).await;
                Done::Ranges(reads, answer)
            });
            reads = rest;
        }
    }

    /// Asks for memberships.
    pub(super) fn ask_for_memberships(&mut self, ask: Ask) {
        self.metrics.question("memberships");
        let (commands, questions) = (self.commands.clone(), Arc::clone(&self.questions));
        self.tasks.spawn(async move {
            let _permit = questions.acquire_owned().await;
            let answer = memberships(&commands, &ask).await;
            Done::Asked(ask, answer)
        });
    }

    /// Hands what was read to the hub. What found no room in the answer is asked for at once.
    pub(super) fn ranges_read(
        &mut self,
        reads: Vec<Read>,
        answer: Result<Vec<Vec<EncodedEvent>>, Failure>,
    ) {
        let answers = match answer {
            Ok(answers) => answers,
            Err(failure) => {
                tracing::debug!(%failure, "events could not be read");
                for read in &reads {
                    self.hub.read_failed(read);
                }
                return;
            }
        };
        let is_full = answers.iter().any(|events| !events.is_empty());
        for (read, events) in reads.iter().zip(answers) {
            match read.reader {
                Reader::Entry(key, joined) if events.is_empty() && is_full => {
                    self.hub
                        .retry(Retry::CatchUp(read.conversation, key, joined));
                }
                _ => self.hub.events_read(read, events),
            }
        }
    }
}

async fn read_events(commands: &Commands, read: &Read) -> Result<Vec<EncodedEvent>, Failure> {
    let query = Query::ReadEvents(ReadEvents {
        tenant: read.tenant.clone(),
        conversation: read.conversation,
        after: read.after,
        up_to: read.up_to,
    });
    match ask(commands, query).await? {
        Answer::Events { events } => Ok(events),
        _ => Err(Failure::of(Code::Internal)),
    }
}

async fn read_ranges(
    commands: &Commands,
    reads: &[Read],
) -> Result<Vec<Vec<EncodedEvent>>, Failure> {
    let Some(first) = reads.first() else {
        return Ok(Vec::new());
    };
    let ranges = reads.iter().map(|read| LogRange {
        conversation: read.conversation,
        after: read.after,
        up_to: read.up_to,
    });
    let query = Query::ReadRanges(ReadRanges {
        tenant: first.tenant.clone(),
        ranges: ranges.collect(),
    });
    match ask(commands, query).await? {
        Answer::Ranges(answers) if answers.len() == reads.len() => Ok(answers),
        _ => Err(Failure::of(Code::Internal)),
    }
}

/// Asks for memberships.
pub(super) async fn memberships(
    commands: &Commands,
    ask_for: &Ask,
) -> Result<Vec<UserMemberships>, Failure> {
    match ask(commands, Query::Memberships(ask_for.of.clone())).await? {
        Answer::Memberships(answers) => Ok(answers),
        _ => Err(Failure::of(Code::Internal)),
    }
}

async fn ask(commands: &Commands, query: Query) -> Result<Answer, Failure> {
    commands
        .query(Uuid::now_v7().to_string(), None, query)
        .await
}
