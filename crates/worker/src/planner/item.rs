//! What goes in and out of the planner.

use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::ids::{ClientId, ConversationId, UserId};
use rustc_hash::FxBuildHasher;

use super::queues::LogKey;

/// The planner's bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// Events in a batch.
    pub(crate) batch_events: usize,
    /// Bytes in a batch; one event is always taken.
    pub(crate) batch_bytes: usize,
    /// Batches at a time.
    pub(crate) lanes: usize,
    /// Commands that run alone, at a time.
    pub(crate) slots: usize,
    /// What waits for a lock in Postgres, at a time.
    pub(crate) places: usize,
    /// Sends that may wait, and other commands.
    pub(crate) queue_events: usize,
    /// Bytes of each that may wait.
    pub(crate) queue_bytes: usize,
}

/// How a command wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A send, in a batch; the key must not be twice in one batch.
    Send(UserId, ClientId),
    /// In a transaction of its own.
    Alone,
}

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Item<J> {
    /// In whose share it counts.
    pub(crate) owner: Owner,
    /// Whose log it appends to; none where the command does not say: then it has no place in any order.
    pub(crate) conversation: Option<ConversationId>,
    /// How it runs.
    pub(crate) kind: Kind,
    /// About how many bytes it takes.
    pub(crate) bytes: usize,
    /// From when on nobody waits for it any more.
    pub(crate) deadline: Instant,
    /// What earlier runs have left open.
    pub(crate) open: Open,
    /// What it is.
    pub(crate) job: J,
}

/// What runs of a command that did not decide it have left open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open {
    /// One of them may have stored it: nobody may be told that nothing was done, until a run under the lock has decided.
    pub(crate) is_unknown: bool,
    /// Why the last one did nothing.
    pub(crate) skipped: Option<Failure>,
}

impl Open {
    /// What the caller is told when the budget has ended.
    pub(crate) fn when_late(&self) -> Failure {
        if self.is_unknown {
            return Failure::of(Code::Timeout);
        }
        let skipped = self.skipped.clone();
        skipped.unwrap_or_else(|| Failure::of(Code::Overloaded).retry_after(1000))
    }
}

/// How a command comes to its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// What is locked is left out.
    Skip,
    /// It waits for the lock.
    Wait,
}

/// What is to be carried out now.
#[derive(Debug)]
pub(crate) enum Work<J> {
    /// Sends, together.
    Batch(Ticket, Vec<Item<J>>),
    /// One command.
    Alone(Ticket, Item<J>),
    /// Their deadline has passed: they are refused.
    Expired(Vec<Item<J>>),
}

/// What is carried out, to be given back when it has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) locking: Locking,
    pub(super) is_batch: bool,
    pub(super) logs: Vec<LogKey>,
    pub(super) events: usize,
    pub(super) began: Instant,
    /// In whose share a slot or place counts.
    pub(super) owner: Owner,
}

/// A command that was refused with nothing done.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) owner: Owner,
    pub(crate) conversation: ConversationId,
    pub(crate) failure: Failure,
}

/// What was carried out, told back.
#[derive(Debug)]
pub(crate) struct Done<J> {
    pub(crate) ticket: Ticket,
    pub(crate) took: Duration,
    /// What was locked and left out, in its order.
    pub(crate) skipped: Vec<Item<J>>,
    /// What was refused with nothing done: what its user has sent to the same conversation behind it is refused as well, for it would
    /// overtake when that is sent again.
    pub(crate) refused: Vec<Refused>,
}

/// The log that a command has its place in; none where it names no conversation.
pub(super) fn log_of<J>(item: &Item<J>) -> Option<LogKey> {
    item.conversation
        .map(|conversation| log_in(&item.owner, conversation))
}

/// A conversation's log, as a user's commands see it.
pub(super) fn log_in(owner: &Owner, conversation: ConversationId) -> LogKey {
    LogKey::Conversation(conversation, FxBuildHasher.hash_one(&owner.tenant))
}
