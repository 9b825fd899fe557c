//! A session as the hub knows it.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Account, Start};
use crate::ws::outbox::Outbox;

/// A session: whose it is, and what is known of its memberships beside their cursors.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) account: Arc<Account>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) conversations: FxHashSet<ConversationId>,
    /// Up to where memberships ended: none that began before is entered again.
    pub(super) ended: FxHashMap<ConversationId, Seq>,
    pub(super) opening: Option<Asking>,
    /// When it opened, by the hub's clock.
    pub(super) opened: u64,
    /// Additions that are being confirmed: until then, no later membership there may be heard.
    pub(super) confirming: FxHashMap<ConversationId, Vec<u64>>,
    /// The hub's epoch in which the session was last told its memberships.
    pub(super) epoch: u64,
    /// Conversations whose events wait for room in the outbox.
    pub(super) behind: FxHashSet<ConversationId>,
    /// What the client lacks of what was truncated, until it says otherwise.
    pub(super) kept: FxHashMap<ConversationId, Kept>,
    /// What was claimed when the session opened without a worker's word.
    pub(super) claims: FxHashMap<ConversationId, Seq>,
    /// Bytes that may still be replayed.
    pub(super) replay_bytes: usize,
}

/// A range that the client is to read over HTTP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// Where the membership began.
    pub(super) joined: Seq,
    /// Up to here it has the conversation.
    pub(super) position: Seq,
    /// The range's end.
    pub(super) head: Seq,
}

/// A session that waits for its memberships.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) start: Start,
    pub(super) memberships: Vec<Membership>,
    pub(super) ended: Vec<Membership>,
    /// Additions heard meanwhile.
    pub(super) noted: FxHashMap<ConversationId, Seq>,
    /// Where the next page begins.
    pub(super) after: Option<ConversationId>,
    /// The hub's epoch of the pages so far.
    pub(super) epoch: u64,
}

impl Session {
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
            let ended = self.ended.entry(membership.conversation).or_default();
            *ended = membership.left.unwrap_or_default().max(*ended);
        }
    }
}
