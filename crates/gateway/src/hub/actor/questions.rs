//! What the hub asks of workers: a few questions at once.

use std::sync::Arc;

use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::ids::TenantId;
use confab_protocol::query::{
    Answer, EncodedEvent, LogRange, Query, ReadEvents, ReadRanges, UserMemberships,
};
use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::{Completion, ShardLoop};
use crate::hub::{MembershipQuery, Purpose, Read, Reader, Retry};
use crate::limits::permits::{FairPermit, FairPermits};
use crate::workers::WorkerClient;

/// Ranges in one question: of a session with more the rest goes in another.
const MAX_QUERY_RANGES: usize = 1000;
/// Events that a worker gives in one answer at most.
const MAX_ANSWER_EVENTS: u64 = 1000;

/// Puts what several sessions lack into few questions: of one tenant each, and as many sessions as find room in one answer.
pub(super) fn together(sessions: impl Iterator<Item = Vec<Read>>) -> Vec<Vec<Read>> {
    let mut full = Vec::new();
    let mut open: FxHashMap<TenantId, (Vec<Read>, u64)> = FxHashMap::default();
    for reads in sessions {
        let Some(tenant) = reads.first().map(|read| read.tenant.clone()) else {
            continue;
        };
        let events: u64 = reads.iter().map(|read| read.up_to - read.after).sum();
        let (page, size) = open.entry(tenant).or_default();
        if page.len() + reads.len() > MAX_QUERY_RANGES || *size + events > MAX_ANSWER_EVENTS {
            full.push(std::mem::take(page));
            *size = 0;
        }
        page.extend(reads);
        *size += events;
    }
    full.extend(open.into_values().map(|(page, _)| page));
    full.retain(|page| !page.is_empty());
    full
}

impl ShardLoop {
    /// Asks for what a conversation's order lacks.
    pub(super) fn ask_for_gap(&mut self, read: Read) {
        self.metrics.question("read_events");
        let (commands, questions) = (self.commands.clone(), Arc::clone(&self.questions));
        let owner = Owner::of_tenant(&read.tenant);
        self.tasks.spawn(async move {
            let _permit = permit(&questions, owner.as_ref()).await;
            let answer = read_events(&commands, &read).await;
            Completion::Read(read, answer)
        });
    }

    /// Asks for what sessions of one tenant lack at once.
    pub(super) fn ask_for_ranges(&mut self, mut reads: Vec<Read>) {
        while !reads.is_empty() {
            let rest = reads.split_off(reads.len().min(MAX_QUERY_RANGES));
            self.metrics.question("read_ranges");
            let (commands, questions) = (self.commands.clone(), Arc::clone(&self.questions));
            let owner = self.owner_of(&reads);
            self.tasks.spawn(async move {
                let _permit = permit(&questions, owner.as_ref()).await;
                let answer = read_ranges(&commands, &reads).await;
                Completion::Ranges(reads, answer)
            });
            reads = rest;
        }
    }

    /// Asks for memberships of the shard's conversations.
    pub(super) fn ask_for_memberships(&mut self, ask: MembershipQuery) {
        self.metrics.question("memberships");
        let asked = ask_for_memberships(&self.commands, &self.questions, ask);
        self.tasks.spawn(asked);
    }

    /// Whose share a question for ranges counts in: the user's whose session lacks them, or the tenant's where several lack them.
    fn owner_of(&self, reads: &[Read]) -> Option<Owner> {
        let key = |read: &Read| match read.reader {
            Reader::Sequencer => None,
            Reader::Subscription(key, _) => Some(key),
        };
        let first = reads.first()?;
        let one = key(first).filter(|one| reads.iter().all(|read| key(read) == Some(*one)));
        match one.and_then(|key| self.shard.account(key)) {
            Some(account) => Some(Owner {
                tenant: account.tenant.clone(),
                user: account.user.clone(),
            }),
            None => Owner::of_tenant(&first.tenant),
        }
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
                    self.shard.read_failed(read);
                }
                return;
            }
        };
        let is_full = answers.iter().any(|events| !events.is_empty());
        for (read, events) in reads.iter().zip(answers) {
            match read.reader {
                Reader::Subscription(key, joined) if events.is_empty() && is_full => {
                    self.shard
                        .retry(Retry::CatchUp(read.conversation, key, joined));
                }
                _ => self.shard.events_read(read, events),
            }
        }
    }
}

/// Asks for memberships. What sessions open by, and what a break of the feed asks for, has bounds of its own in the coordinator, and waits
/// behind nothing that others read.
pub(super) fn ask_for_memberships(
    commands: &WorkerClient,
    questions: &Arc<FairPermits>,
    ask: MembershipQuery,
) -> impl Future<Output = Completion> + Send + use<> {
    let (commands, questions) = (commands.clone(), Arc::clone(questions));
    let owner = match ask.purpose {
        Purpose::Opening(..) | Purpose::Reconcile => None,
        Purpose::Confirm(_) | Purpose::MembershipLookup => owner_of_ask(&ask),
    };
    async move {
        let _permit = permit(&questions, owner.as_ref()).await;
        let answer = memberships(&commands, &ask).await;
        Completion::SnapshotAnswers(ask, answer)
    }
}

/// A place among what is asked at once, for whoever shares them.
pub(super) async fn permit(
    questions: &Arc<FairPermits>,
    owner: Option<&Owner>,
) -> Option<FairPermit> {
    questions.acquire(owner?).await.ok()
}

/// Whose share a question for memberships counts in: the user's, or the tenant's where it is for several.
pub(super) fn owner_of_ask(ask: &MembershipQuery) -> Option<Owner> {
    let first = ask.of.first()?;
    if ask.of.iter().any(|one| one.user != first.user) {
        return Owner::of_tenant(&first.tenant);
    }
    Some(Owner {
        tenant: first.tenant.clone(),
        user: first.user.clone(),
    })
}

async fn read_events(commands: &WorkerClient, read: &Read) -> Result<Vec<EncodedEvent>, Failure> {
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
    commands: &WorkerClient,
    reads: &[Read],
) -> Result<Vec<Vec<EncodedEvent>>, Failure> {
    let Some(first) = reads.first() else {
        return Ok(Vec::new());
    };
    // Members of one conversation that come back together lack the same.
    let (mut ranges, mut known) = (Vec::new(), FxHashMap::default());
    let mut place = |read: &Read| {
        let range = (read.conversation, read.after, read.up_to);
        *known.entry(range).or_insert_with(|| {
            let (conversation, after, up_to) = range;
            ranges.push(LogRange {
                conversation,
                after,
                up_to,
            });
            ranges.len() - 1
        })
    };
    let places: Vec<usize> = reads.iter().map(&mut place).collect();
    let count = ranges.len();
    let query = Query::ReadRanges(ReadRanges {
        tenant: first.tenant.clone(),
        ranges,
    });
    match ask(commands, query).await? {
        Answer::Ranges(answers) if answers.len() == count => {
            let answer = |place: usize| answers.get(place).cloned().unwrap_or_default();
            Ok(places.into_iter().map(answer).collect())
        }
        _ => Err(Failure::of(Code::Internal)),
    }
}

/// Asks for memberships.
pub(super) async fn memberships(
    commands: &WorkerClient,
    ask_for: &MembershipQuery,
) -> Result<Vec<UserMemberships>, Failure> {
    match ask(commands, Query::Memberships(ask_for.of.clone())).await? {
        Answer::Memberships(answers) => Ok(answers),
        _ => Err(Failure::of(Code::Internal)),
    }
}

async fn ask(commands: &WorkerClient, query: Query) -> Result<Answer, Failure> {
    commands
        .query(Uuid::now_v7().to_string(), None, query)
        .await
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::{ConversationId, Seq};

    use super::*;
    use crate::account::SessionKey;

    fn session(tenant: &str, number: u64, ranges: usize, events: Seq) -> Vec<Read> {
        let read = |_| Read {
            tenant: tenant.parse().unwrap(),
            conversation: ConversationId(Uuid::nil()),
            after: 7,
            up_to: 7 + events,
            reader: Reader::Subscription(SessionKey(number), 1),
        };
        (0..ranges).map(read).collect()
    }

    #[test]
    fn missing_ranges_go_in_few_queries() {
        let few = (0..300).map(|number| session("a", number, 10, 1));
        let other = session("b", 300, 1, 1);
        let much = session("a", 301, 2, 5000);
        let none = Vec::new();
        let pages = together(few.chain([other, much, none]));
        let count = |tenant: &str| {
            let of = |page: &&Vec<Read>| page.iter().all(|read| read.tenant.as_str() == tenant);
            pages.iter().filter(of).map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(count("b"), [1]);
        assert_eq!(
            count("a"),
            [1000, 1000, 1000, 2],
            "a session's reads stay together"
        );
        assert!(together([].into_iter()).is_empty());
    }
}
