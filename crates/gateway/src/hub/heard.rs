//! How far the logs of conversations without local members were heard: what a baseline from Postgres may not know yet.

use std::time::{Duration, Instant};

use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

/// How long at least a seq is remembered: longer than any answer of a worker can be old.
pub(crate) const MEMORY: Duration = Duration::from_secs(30);

/// Two maps, turned over: a seq noted is remembered for one to two [`MEMORY`].
#[derive(Debug)]
pub(crate) struct Heard {
    young: FxHashMap<ConversationId, Seq>,
    old: FxHashMap<ConversationId, Seq>,
    turned: Instant,
}

impl Heard {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            turned: now,
        }
    }

    /// Takes note that `seq` of the conversation was heard.
    pub(crate) fn note(&mut self, conversation: ConversationId, seq: Seq, now: Instant) {
        if now.duration_since(self.turned) >= MEMORY {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        let known = self.young.entry(conversation).or_default();
        *known = seq.max(*known);
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

    #[test]
    fn a_seq_is_remembered_for_longer_than_an_answer_can_be_old() {
        let start = Instant::now();
        let mut heard = Heard::new(start);
        let (a, b) = (
            ConversationId(uuid::Uuid::from_u128(1)),
            ConversationId(uuid::Uuid::from_u128(2)),
        );
        heard.note(a, 7, start);
        heard.note(a, 5, start);
        heard.note(b, 1, start + MEMORY);
        assert_eq!(heard.highest(a), 7);
        heard.note(b, 2, start + MEMORY * 2);
        assert_eq!((heard.highest(a), heard.highest(b)), (0, 2));
    }
}
