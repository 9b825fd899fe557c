//! A session as the hub knows it.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ended::Ended;
use super::steps::ReplayBudget;
use crate::account::Account;
use crate::delivery::send_queue::SendQueue;

/// A session: whose it is, and what is known of its memberships beside their cursors.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) account: Arc<Account>,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) conversations: Conversations,
    /// Up to where memberships ended: none that began before is entered again.
    pub(super) ended: Ended,
    /// While it opens, the additions heard meanwhile.
    pub(super) noted: Option<Box<FxHashMap<ConversationId, Seq>>>,
    /// When it began to open, by the shard's clock.
    pub(super) opened: u64,
    /// Additions that are being confirmed: until then, no later membership there may be heard.
    pub(super) confirming: FxHashMap<ConversationId, Vec<u64>>,
    /// The epoch in which its memberships were last asked for; none before the first answer.
    pub(super) epoch: u64,
    /// Conversations whose events wait for room in the send queue.
    pub(super) behind: FxHashSet<ConversationId>,
    /// What the client lacks of what was truncated, until it says otherwise.
    pub(super) kept: FxHashMap<ConversationId, TruncatedRange>,
    /// What was claimed when the session opened without a worker's word.
    pub(super) claims: FxHashMap<ConversationId, Seq>,
    /// Bytes that may still be replayed.
    pub(super) replay: Arc<ReplayBudget>,
}

/// The conversations in which a session has memberships: as many as fit, in order.
#[derive(Debug, Default)]
pub(super) struct Conversations(Vec<ConversationId>);

impl Conversations {
    /// There will be so many.
    pub(super) fn expect(&mut self, count: usize) {
        self.0.reserve_exact(count);
    }

    /// Adds one; says whether it is new. Those that a session opens with come in order.
    pub(super) fn insert(&mut self, id: ConversationId) -> bool {
        let place = self.0.binary_search(&id);
        if let Err(place) = place {
            self.0.insert(place, id);
        }
        place.is_err()
    }

    pub(super) fn remove(&mut self, id: ConversationId) {
        if let Ok(place) = self.0.binary_search(&id) {
            self.0.remove(place);
        }
    }

    /// Takes the last one.
    pub(super) fn pop(&mut self) -> Option<ConversationId> {
        self.0.pop()
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, id: ConversationId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ConversationId> {
        self.0.iter().copied()
    }
}

/// A range that the client is to read over HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) struct TruncatedRange {
    /// Where the membership began.
    pub(super) joined: Seq,
    /// Up to here it has the conversation.
    pub(super) position: Seq,
    /// The range's end.
    pub(super) head: Seq,
}

impl Session {
    /// Whether it was entered.
    pub(super) const fn is_open(&self) -> bool {
        self.noted.is_none()
    }

    /// Whether a membership of the conversation may have begun and ended that the session was not told.
    pub(super) fn is_unsure(&self, id: ConversationId, epoch: u64) -> bool {
        self.epoch < epoch || self.confirming.contains_key(&id)
    }

    /// An addition was confirmed, or is none any more.
    pub(super) fn confirmed(&mut self, id: ConversationId, number: u64) {
        if let Some(numbers) = self.confirming.get_mut(&id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.confirming.remove(&id);
            }
        }
    }

    /// Memberships that ended before the session opened: it is not owed them.
    pub(super) fn note_ended(&mut self, memberships: &[Membership]) {
        for membership in memberships {
            self.ended
                .insert(membership.conversation, membership.left.unwrap_or_default());
        }
    }
}
