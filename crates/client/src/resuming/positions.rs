//! What the client has of each conversation: which events are news, and what it may say that it holds.

use std::collections::{BTreeMap, BTreeSet};

use confab_protocol::frame::Truncated;
use confab_protocol::ids::{ConversationId, Seq};

/// Of one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReceivedPosition {
    /// The last seq that was told, or named as not sent.
    heard: Seq,
    /// The last seq up to which the program holds all.
    held: Seq,
    /// The last seq of what is named as not sent and not read yet. What of it comes after all is news.
    gap: Option<Seq>,
}

impl ReceivedPosition {
    const fn at(seq: Seq) -> Self {
        Self {
            heard: seq,
            held: seq,
            gap: None,
        }
    }

    /// Returns true if the event is news, which it then is no more (docs/protocol/delivery.md, "Order and acknowledgements").
    fn advance(&mut self, seq: Seq) -> bool {
        let fills = self.gap.is_some_and(|end| seq > self.held && seq <= end);
        if seq <= self.heard && !fills {
            return false;
        }
        self.heard = self.heard.max(seq);
        if fills {
            self.hold(seq);
        } else if self.gap.is_none() {
            self.held = seq;
        }
        true
    }

    /// The program holds all up to `seq`. Where that is the whole gap, it holds what was told behind it as well.
    fn hold(&mut self, seq: Seq) {
        if self.gap.is_some_and(|end| seq < end) {
            self.held = self.held.max(seq);
        } else {
            *self = Self::at(self.heard.max(seq));
        }
    }

    fn truncate(&mut self, head: Seq) {
        if self.held < head {
            self.gap = Some(self.gap.map_or(head, |end| end.max(head)));
            self.heard = self.heard.max(head);
        }
    }
}

/// Of all conversations.
#[derive(Debug, Default)]
pub(super) struct Positions {
    all: BTreeMap<ConversationId, ReceivedPosition>,
    /// Those that moved since the gateway was told.
    moved: BTreeSet<ConversationId>,
}

impl Positions {
    /// Returns what the program holds from before.
    pub(super) fn from_before(seen: &BTreeMap<ConversationId, Seq>) -> Self {
        let all = seen
            .iter()
            .map(|(id, seq)| (*id, ReceivedPosition::at(*seq)));
        Self {
            all: all.collect(),
            moved: BTreeSet::new(),
        }
    }

    /// A session starts afresh: what it holds nothing of counts from its head, also where nothing is heard until the next.
    pub(super) fn begin(&mut self, heads: BTreeMap<ConversationId, Seq>) {
        for (conversation, head) in heads {
            let begun = ReceivedPosition::at(head);
            self.all.entry(conversation).or_insert(begun);
        }
    }

    /// Returns true if the event is news; then it is told.
    pub(super) fn advance(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        let news = match self.all.get_mut(&conversation) {
            Some(position) => position.advance(seq),
            None => {
                self.all.insert(conversation, ReceivedPosition::at(seq));
                true
            }
        };
        if news {
            self.moved.insert(conversation);
        }
        news
    }

    /// A range is not sent. With `reset` all that is held is void, and the end of the range the new base.
    pub(super) fn truncate(&mut self, range: &Truncated) {
        let before = range.from_seq.saturating_sub(1);
        let position = self
            .all
            .entry(range.conversation_id)
            .or_insert(ReceivedPosition::at(before));
        if range.reset == Some(true) {
            *position = ReceivedPosition::at(before);
        }
        position.truncate(range.head_seq);
    }

    /// The program says what it holds. Gives whether that is news to the gateway.
    pub(super) fn hold(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        let position = self
            .all
            .entry(conversation)
            .or_insert(ReceivedPosition::at(Seq::MIN));
        let before = *position;
        position.hold(seq);
        let moved = *position != before;
        if moved {
            self.moved.insert(conversation);
        }
        moved
    }

    /// All that is held, for a hello.
    pub(super) fn all(&self) -> BTreeMap<ConversationId, Seq> {
        let all = self.all.iter();
        all.map(|(id, position)| (*id, position.held)).collect()
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// At most `most` of those that moved, for a `seen`.
    pub(super) fn moved(&mut self, most: usize) -> BTreeMap<ConversationId, Seq> {
        let mut moved = BTreeMap::new();
        while moved.len() < most
            && let Some(conversation) = self.moved.pop_first()
        {
            if let Some(position) = self.all.get(&conversation) {
                moved.insert(conversation, position.held);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn conversation() -> ConversationId {
        ConversationId(Uuid::now_v7())
    }

    fn range(conversation: ConversationId, from: Seq, head: Seq, reset: bool) -> Truncated {
        Truncated {
            conversation_id: conversation,
            from_seq: from,
            head_seq: head,
            reset: reset.then_some(true),
        }
    }

    fn held(positions: &Positions, conversation: ConversationId) -> Option<Seq> {
        positions.all().get(&conversation).copied()
    }

    #[test]
    fn event_not_above_last_position_is_ignored() {
        let (a, b) = (conversation(), conversation());
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 5)]));
        let news =
            [(a, 5), (a, 6), (a, 4), (b, 1), (a, 8)].map(|(c, seq)| positions.advance(c, seq));
        assert_eq!(news, [false, true, false, true, true]);
        assert_eq!(positions.all(), BTreeMap::from([(a, 8), (b, 1)]));
    }

    #[test]
    fn truncated_range_is_unheld_until_program_confirms() {
        let a = conversation();
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 10)]));
        positions.truncate(&range(a, 11, 5000, false));
        assert!(positions.advance(a, 5001));
        assert!(!positions.advance(a, 5001));
        assert_eq!(held(&positions, a), Some(10));
        positions.hold(a, 2000);
        assert_eq!(held(&positions, a), Some(2000));
        assert!(!positions.advance(a, 2000), "read over HTTP");
        positions.hold(a, 5000);
        assert_eq!(held(&positions, a), Some(5001));
        assert!(!positions.advance(a, 4000));
    }

    #[test]
    fn late_event_in_truncated_range_is_delivered_once() {
        let a = conversation();
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 1)]));
        positions.truncate(&range(a, 2, 4, false));
        assert!(positions.advance(a, 5));
        let again = [2, 3, 3, 4, 5, 6].map(|seq| positions.advance(a, seq));
        assert_eq!(again, [true, true, false, true, false, true]);
        assert_eq!(held(&positions, a), Some(6));
    }

    #[test]
    fn event_before_range_may_follow_its_announcement() {
        let a = conversation();
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 1)]));
        positions.truncate(&range(a, 3, 9, false));
        assert_eq!([2, 10].map(|seq| positions.advance(a, seq)), [true, true]);
        assert_eq!(held(&positions, a), Some(2));
    }

    #[test]
    fn reset_discards_positions_and_starts_at_head() {
        let a = conversation();
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 100)]));
        positions.truncate(&range(a, 1, 7, true));
        assert_eq!(held(&positions, a), Some(0));
        assert!(positions.advance(a, 8), "the log went back and goes on");
        positions.hold(a, 7);
        assert_eq!(held(&positions, a), Some(8));
    }

    #[test]
    fn held_range_is_ignored_and_longer_read_counts() {
        let (a, b) = (conversation(), conversation());
        let mut positions = Positions::from_before(&BTreeMap::from([(a, 20)]));
        positions.truncate(&range(a, 6, 15, false));
        assert_eq!(held(&positions, a), Some(20));
        positions.truncate(&range(b, 4, 9, false));
        assert_eq!(held(&positions, b), Some(3));
        positions.hold(b, 12);
        assert_eq!([12, 13].map(|seq| positions.advance(b, seq)), [false, true]);
    }

    #[test]
    fn only_moved_positions_are_sent_in_parts() {
        let (a, b) = (conversation(), conversation());
        let mut positions = Positions::default();
        positions.advance(a, 1);
        positions.advance(b, 1);
        positions.advance(b, 2);
        assert_eq!(positions.moved(1).len(), 1);
        assert_eq!(positions.moved(9).len(), 1);
        assert!(!positions.has_moved());
        assert!(positions.hold(a, 4) && !positions.hold(a, 4));
        assert_eq!(positions.moved(9), BTreeMap::from([(a, 4)]));
    }
}
