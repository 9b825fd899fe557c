//! Where memberships of one session ended lately.

use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

/// Conversations whose memberships' end is remembered, at least; of twice as many the older half is forgotten. Of what is forgotten the
/// end may be told again, which a client ignores.
pub(super) const MIN_ENDED: usize = 500;

/// Up to where memberships ended, by conversation: none that began before is entered again.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// With the number of the end, which grows with each.
    by_conversation: FxHashMap<ConversationId, (Seq, u64)>,
    count: u64,
}

impl Ended {
    /// Where the last membership of a conversation ended.
    pub(super) fn get(&self, id: ConversationId) -> Option<Seq> {
        self.by_conversation.get(&id).map(|(left, _)| *left)
    }

    /// A membership ended.
    pub(super) fn insert(&mut self, id: ConversationId, left: Seq) {
        self.count += 1;
        let (before, number) = self.by_conversation.entry(id).or_default();
        *before = left.max(*before);
        *number = self.count;
        if self.by_conversation.len() >= 2 * MIN_ENDED {
            self.forget_older_half();
        }
    }

    /// Every conversation with the end of its last membership.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConversationId, Seq)> {
        let all = self.by_conversation.iter();
        all.map(|(id, (left, _))| (*id, *left))
    }

    fn forget_older_half(&mut self) {
        let mut numbers: Vec<_> = self.by_conversation.values().map(|(_, n)| *n).collect();
        let (_, oldest_kept, _) = numbers.select_nth_unstable(MIN_ENDED);
        let oldest_kept = *oldest_kept;
        self.by_conversation
            .retain(|_, (_, number)| *number >= oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ConversationId {
        ConversationId(Uuid::from_u128(n))
    }

    #[test]
    fn ends_are_remembered_up_to_a_bound() {
        let mut ended = Ended::default();
        for n in 0..10_000_u64 {
            ended.insert(id(n.into()), n + 1);
            assert!(ended.by_conversation.len() < 2 * MIN_ENDED);
        }
        for n in 9_500..10_000_u64 {
            assert_eq!(ended.get(id(n.into())), Some(n + 1), "the last ones stay");
        }
        assert_eq!(ended.get(id(0)), None);
        assert!(ended.by_conversation.capacity() < 8 * MIN_ENDED);
    }

    #[test]
    fn later_end_of_a_conversation_counts() {
        let mut ended = Ended::default();
        ended.insert(id(1), 7);
        ended.insert(id(1), 5);
        assert_eq!(ended.get(id(1)), Some(7));
        ended.insert(id(1), 9);
        assert_eq!(ended.iter().collect::<Vec<_>>(), [(id(1), 9)]);
    }
}
