//! Read marks: taken from batches of commands, and carried out beside the planner.

use std::time::{Duration, Instant};

use confab_protocol::command::{Command, MarkRead, Outcome, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use tracing::warn;

use super::answering::{Parts, Slot};
use super::{Dispatch, Ended, Pending, Running, code};
use crate::commit::{Fate, Mark};
use crate::fault;
use crate::marks;
use crate::origin::Origin;
use crate::planner::{Locking, Open};

/// After how long a refused mark is worth another try, in milliseconds.
const RETRY_AFTER_MS: u64 = 250;

/// How often it is told at most that marks are given up because of locks: as often as a place that waits for one gives it up.
const WARNING_PERIOD: Duration = Duration::from_secs(2);

/// A mark that waits.
pub(super) type Waiting = marks::Waiting<Pending>;

impl Dispatch {
    /// Takes a mark in, or refuses it.
    pub(super) fn take_mark(&mut self, deadline: Instant, job: Pending, parts: &mut Parts) {
        let items = match &job.request.command {
            Command::MarkRead(MarkRead::Messages(messages)) => messages.len().max(1),
            _ => 1,
        };
        let waiting = Waiting {
            owner: Owner::from(&job.request.caller),
            items,
            deadline,
            open: Open::default(),
            job,
        };
        if let Err(Waiting { job, .. }) = self.marks.push(waiting) {
            let failure = Failure::of(Code::Overloaded).retry_after(RETRY_AFTER_MS);
            self.answer(job, Err(failure), parts);
        }
    }

    /// Begins a statement with what waits, unless one runs.
    pub(super) fn start_marks(&mut self) {
        let Some(together) = self.marks.next(Instant::now()) else {
            return;
        };
        let mut late = Parts::default();
        for waiting in together.expired {
            self.tell_of_lock(&waiting);
            let Waiting { job, open, .. } = waiting;
            self.answer(job, Err(open.when_late()), &mut late);
        }
        self.send(late);
        let (mut marks, mut readers, mut dies) = (Vec::new(), Vec::new(), false);
        for waiting in together.due {
            dies |= fault::exits_before_answer(&waiting.job.request);
            if let Some((mark, reader)) = prepare(waiting) {
                marks.push(mark);
                readers.push(reader);
            }
        }
        if marks.is_empty() {
            self.marks.finish();
            return;
        }
        let (committer, metrics) = (self.committer.clone(), self.metrics.clone());
        let carry_out = async move {
            let began = Instant::now();
            let fates = committer.mark(&marks).await;
            if dies && fates.iter().any(moves) {
                std::process::abort();
            }
            let (mut parts, mut skipped) = (Parts::default(), Vec::new());
            for ((mark, reader), fate) in marks.into_iter().zip(readers).zip(fates) {
                match fate {
                    Fate::Decided(outcome) => {
                        let took = reader.received.elapsed();
                        if reader.was_skipped {
                            metrics.waited_for_lock(took);
                        }
                        metrics.command("mark_read", code(&outcome), took, reader.bytes);
                        parts.add(reader.slot, outcome);
                    }
                    Fate::Locked(open) => skipped.push(reader.wait(mark, open, &mut parts)),
                }
            }
            metrics.locked(Locking::Skip, skipped.len(), began.elapsed());
            parts.send().await;
            Ended::Marks(skipped)
        };
        self.spawn(Running::Marks, carry_out);
    }
}

impl Dispatch {
    /// Says what a mark waited for in vain, where it did: an operator looks for who holds it. All that come to their end within a while are
    /// told of by the first.
    fn tell_of_lock(&mut self, waiting: &Waiting) {
        if waiting.open.skipped.is_none() {
            return;
        }
        let took = waiting.job.received.elapsed();
        self.metrics.waited_for_lock(took);
        let now = Instant::now();
        let was_told = self.lock_warned.is_some_and(|at| now - at < WARNING_PERIOD);
        if was_told {
            return;
        }
        self.lock_warned = Some(now);
        let command = &waiting.job.request.command;
        let conversation = match command {
            Command::MarkRead(MarkRead::UpTo { conversation, .. }) => Some(conversation),
            _ => None,
        };
        warn!(
            conversation.id = conversation.map(tracing::field::display),
            command = command.name(),
            duration_ms = took.as_millis(),
            "another session of Postgres holds what a command waits for"
        );
    }
}

/// Who waits for the outcome of a mark.
struct Reader {
    slot: Slot,
    received: Instant,
    bytes: usize,
    items: usize,
    was_skipped: bool,
}

fn prepare(waiting: Waiting) -> Option<(Mark, Reader)> {
    let Pending {
        request,
        received,
        slot,
    } = waiting.job;
    let bytes = request.command.weight();
    let Request {
        request_id,
        traceparent,
        caller,
        command,
        event: _,
    } = *request;
    let Command::MarkRead(read) = command else {
        return None;
    };
    let mark = Mark {
        caller,
        read,
        deadline: waiting.deadline,
        origin: Origin {
            request_id,
            traceparent,
        },
    };
    let reader = Reader {
        slot,
        received,
        bytes,
        items: waiting.items,
        was_skipped: waiting.open.skipped.is_some(),
    };
    Some((mark, reader))
}

impl Reader {
    /// The mark as it waits again; its gateway is told so once.
    fn wait(self, mark: Mark, open: Open, parts: &mut Parts) -> Waiting {
        if !self.was_skipped {
            parts.add_waiting(&self.slot);
        }
        Waiting {
            owner: Owner::from(&mark.caller),
            items: self.items,
            deadline: mark.deadline,
            open,
            job: Pending {
                request: Box::new(Request {
                    request_id: mark.origin.request_id,
                    traceparent: mark.origin.traceparent,
                    event: None,
                    caller: mark.caller,
                    command: Command::MarkRead(mark.read),
                }),
                received: self.received,
                slot: self.slot,
            },
        }
    }
}

/// Whether a mark stands further than before: the repeat of one whose worker died does not.
fn moves(fate: &Fate) -> bool {
    matches!(fate, Fate::Decided(Ok(Outcome::Read(marks))) if marks.iter().any(|mark| mark.moved))
}
