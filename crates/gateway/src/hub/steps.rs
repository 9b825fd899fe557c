//! What the coordinator has the shards do, each with what concerns its conversations. A shard takes the steps in the order in which they
//! were sent, and answers each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use confab_bus::records::Position;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;

use super::session::TruncatedRange;
use super::subscription::StartPosition;
use crate::account::{Account, SessionKey};
use crate::delivery::send_queue::SendQueue;

/// A session that every shard is to know of before its memberships are asked for: from then on each takes note of additions.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) key: SessionKey,
    pub(crate) account: Arc<Account>,
    pub(crate) send_queue: Arc<SendQueue>,
    pub(crate) replay: Arc<ReplayBudget>,
}

/// Bytes that may still be replayed to a session, by all shards together.
#[derive(Debug)]
pub(crate) struct ReplayBudget(AtomicUsize);

impl ReplayBudget {
    pub(super) const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Takes so many; says whether there were as many. The last ones are taken all the same.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| Some(left.saturating_sub(bytes));
        let had = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        had.is_ok_and(|had| had >= bytes)
    }
}

/// A range of a log: above `after`, up to and with `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeqRange {
    pub(super) conversation: ConversationId,
    pub(super) after: Seq,
    pub(super) head: Seq,
}

/// What a session that opens is entered with.
#[derive(Debug, Default)]
pub(crate) struct ShardOpening {
    /// The coordinator's epoch when the memberships were asked for: what a later break of the feed hides is asked for again.
    pub(super) epoch: u64,
    /// Memberships that ended before: it is not owed them.
    pub(super) over: Vec<Membership>,
    /// Where each of the others begins to be heard, in the order of conversation and joining.
    pub(super) begins: VecDeque<(Membership, StartPosition)>,
    /// What is named in `truncated`.
    pub(super) kept: Vec<(ConversationId, TruncatedRange)>,
}

/// What a session that goes on opens by when no worker answers.
#[derive(Debug, Default)]
pub(crate) struct RecordedOpening {
    pub(super) positions: Vec<Position>,
    pub(super) seen: BTreeMap<ConversationId, Seq>,
}

/// What a worker told of a user after a break of the feed.
#[derive(Debug)]
pub(crate) struct Reconciliation {
    pub(super) account: Arc<Account>,
    /// The sessions of which it proves something: those that were open before it was asked.
    pub(super) proves: Arc<[SessionKey]>,
    pub(super) memberships: Vec<Membership>,
    pub(super) ended: Vec<Membership>,
    /// With the last page, the epoch in which it was asked.
    pub(super) whole: Option<u64>,
}

/// Of a user each conversation, with the position up to which all its sessions have it, or claim to.
pub(crate) type HeldPositions = Vec<(ConversationId, Seq)>;

/// One shard's part of a step.
#[derive(Debug)]
pub(crate) enum Step {
    Register(Registration),
    /// What would ranges that a session missed put on the wire?
    Weigh(Arc<Account>, Vec<SeqRange>),
    /// Enters the memberships of a session that opens.
    Enter(SessionKey, Arc<Account>, Box<ShardOpening>),
    /// Enters a session without a worker's word.
    EnterByRecord(SessionKey, Arc<Account>, RecordedOpening),
    /// Up to where do all sessions of the users have each of their conversations, or claim to? With the answers so far.
    HeldPositions(VecDeque<Arc<Account>>, Vec<HeldPositions>),
    /// Takes in what workers told of users.
    Reconciliation(Vec<Reconciliation>),
}

impl Step {
    /// Whose sessions it is about, where it is about one user's.
    pub(crate) fn account(&self) -> Option<&Account> {
        match self {
            Self::Register(registration) => Some(&registration.account),
            Self::Weigh(account, _)
            | Self::Enter(_, account, _)
            | Self::EnterByRecord(_, account, _) => Some(account),
            Self::HeldPositions(..) | Self::Reconciliation(_) => None,
        }
    }
}

/// A shard's answer to its part.
#[derive(Debug, Default)]
pub(crate) enum Stepped {
    /// To what is only to be done.
    #[default]
    Done,
    /// Of each range, as far as the window knows.
    Weights(Vec<usize>),
    /// The heads of the conversations that were entered, and how many events are replayed.
    ByRecord(Vec<(ConversationId, Seq)>, u64),
    /// Of each user.
    HeldPositions(Vec<HeldPositions>),
}
