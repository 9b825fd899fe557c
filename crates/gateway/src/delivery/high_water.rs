//! The highest seqs heard of conversations that are not held otherwise.

use std::time::{Duration, Instant};

use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

/// High-water marks by conversation, in two maps that are turned over: a mark is remembered for one to two periods.
#[derive(Debug)]
pub(crate) struct HighWaterMarks {
    young: FxHashMap<ConversationId, Seq>,
    old: FxHashMap<ConversationId, Seq>,
    turned: Instant,
    period: Duration,
}

impl HighWaterMarks {
    pub(crate) fn new(period: Duration, now: Instant) -> Self {
        Self {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            turned: now,
            period,
        }
    }

    /// Takes note that `seq` of the conversation was heard.
    pub(crate) fn note(&mut self, conversation: ConversationId, seq: Seq, now: Instant) {
        if now.saturating_duration_since(self.turned) >= self.period {
            self.turn_over(now);
        }
        let known = self.young.entry(conversation).or_default();
        *known = seq.max(*known);
    }

    /// Forgets what was noted before the last time that this was done.
    pub(crate) fn turn_over(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.turned = now;
    }

    /// How many marks were noted since the maps were turned over.
    pub(crate) fn noted(&self) -> usize {
        self.young.len()
    }

    /// The highest seq heard lately; 0 when none was.
    pub(crate) fn highest(&self, conversation: ConversationId) -> Seq {
        let of = |map: &FxHashMap<_, _>| map.get(&conversation).copied().unwrap_or_default();
        of(&self.young).max(of(&self.old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK_LIFETIME: Duration = Duration::from_secs(30);

    #[test]
    fn seq_is_remembered_longer_than_any_answer() {
        let start = Instant::now();
        let mut marks = HighWaterMarks::new(MARK_LIFETIME, start);
        let (a, b) = (
            ConversationId(uuid::Uuid::from_u128(1)),
            ConversationId(uuid::Uuid::from_u128(2)),
        );
        marks.note(a, 7, start);
        marks.note(a, 5, start);
        marks.note(b, 1, start + MARK_LIFETIME);
        assert_eq!(marks.highest(a), 7);
        marks.note(b, 2, start + MARK_LIFETIME * 2);
        assert_eq!((marks.highest(a), marks.highest(b)), (0, 2));
        assert_eq!(marks.noted(), 1);
    }
}
