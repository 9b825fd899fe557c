//! Since when conversations have members here: who left one while it had none was not heard to leave.

use confab_protocol::ids::ConversationId;
use rustc_hash::FxHashMap;

/// Conversations of which that is remembered.
const MAX_HOSTINGS: usize = if cfg!(test) { 4 } else { 256 * 1024 };

/// When conversations had their first member here, in an order with what was heard of users.
#[derive(Debug, Default)]
pub(super) struct Hostings {
    /// Grows with everything that is heard.
    clock: u64,
    since: FxHashMap<ConversationId, u64>,
    /// What was heard before counts for none: more conversations came than are remembered.
    forgot: u64,
}

impl Hostings {
    /// Something is heard now.
    pub(super) const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A conversation has its first member here.
    pub(super) fn begin(&mut self, id: ConversationId) {
        if self.since.len() >= MAX_HOSTINGS && !self.since.contains_key(&id) {
            self.forget();
        }
        let now = self.tick();
        self.since.insert(id, now);
    }

    /// Any conversation may have its first member here.
    pub(super) fn forget(&mut self) {
        self.since = FxHashMap::default();
        self.forgot = self.tick();
    }

    /// Whether a conversation has had members here since a user was heard to be a member of it.
    pub(super) fn last(&self, id: ConversationId, heard: u64) -> bool {
        heard > self.forgot && self.since.get(&id).is_none_or(|since| *since < heard)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_heard_before_a_hosting_counts_for_none() {
        let id = |n| ConversationId(Uuid::from_u128(n));
        let mut hostings = Hostings::default();
        let before = hostings.tick();
        assert!(hostings.last(id(1), before));
        hostings.begin(id(1));
        assert!(!hostings.last(id(1), before) && hostings.last(id(2), before));
        let behind = hostings.tick();
        assert!(hostings.last(id(1), behind));
        for n in 2..=5 {
            hostings.begin(id(n));
        }
        assert!(!hostings.last(id(9), behind), "one too many");
        assert!(hostings.since.len() <= MAX_HOSTINGS);
    }
}
