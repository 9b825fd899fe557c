//! One conversation's order: delivers seq after seq, drops what came before, holds what came too early. Stream order is
//! not log order: two workers, the relay and publishing again can reverse or repeat events.

use std::collections::BTreeMap;
use std::sync::Arc;

use confab_protocol::event::EventType;
use confab_protocol::ids::Seq;

use crate::delivery::broadcast::Broadcast;

/// An event as it is delivered: its JSON is not parsed but for membership. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent {
    pub(crate) seq: Seq,
    pub(crate) r#type: EventType,
    /// The message that an edit or deletion is about.
    pub(crate) target: Option<Seq>,
    pub(crate) body: Arc<Broadcast>,
}

impl LogEvent {
    /// How many bytes its JSON has.
    pub(crate) fn bytes(&self) -> usize {
        self.body.json().len()
    }
}

/// Events held for a conversation whose next one is missing; more are fetched again instead.
const HELD_EVENTS: usize = 256;
const HELD_BYTES: usize = 2 * 1024 * 1024;

/// The order of one conversation.
#[derive(Debug)]
pub(crate) struct Sequencer {
    position: Seq,
    known: Seq,
    held: BTreeMap<Seq, LogEvent>,
    held_bytes: usize,
}

/// What becomes of an event.
#[derive(Debug)]
pub(crate) enum SequenceVerdict {
    /// It is the next one.
    Deliver(LogEvent),
    /// It was delivered before.
    Duplicate,
    /// One before it is missing.
    Gap,
}

impl Sequencer {
    /// Everything up to `position` counts as delivered: it came from Postgres, or was heard before there were members.
    pub(crate) const fn at(position: Seq) -> Self {
        Self {
            position,
            known: position,
            held: BTreeMap::new(),
            held_bytes: 0,
        }
    }

    /// The last seq delivered.
    pub(crate) const fn position(&self) -> Seq {
        self.position
    }

    /// The last seq known to exist.
    pub(crate) const fn known(&self) -> Seq {
        self.known
    }

    /// Whether an event that exists was not delivered yet.
    pub(crate) const fn has_gap(&self) -> bool {
        self.position < self.known
    }

    /// Takes note that `seq` exists.
    pub(crate) fn learn(&mut self, seq: Seq) {
        self.known = self.known.max(seq);
    }

    /// Takes an event, in whatever order they come. After a [`SequenceVerdict::Deliver`], [`Self::next_held`] may have more.
    pub(crate) fn offer(&mut self, event: LogEvent) -> SequenceVerdict {
        if event.seq <= self.position {
            return SequenceVerdict::Duplicate;
        }
        self.learn(event.seq);
        if event.seq == self.position + 1 {
            self.position = event.seq;
            return SequenceVerdict::Deliver(event);
        }
        if self.held.contains_key(&event.seq) {
            return SequenceVerdict::Duplicate;
        }
        if self.held.len() < HELD_EVENTS && self.held_bytes + event.bytes() <= HELD_BYTES {
            self.held_bytes += event.bytes();
            self.held.insert(event.seq, event);
        }
        SequenceVerdict::Gap
    }

    /// The event that was held and is now the next one.
    pub(crate) fn next_held(&mut self) -> Option<LogEvent> {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.position + 1 {
                return None;
            }
            let event = entry.remove();
            self.held_bytes -= event.bytes();
            if event.seq == self.position + 1 {
                self.position = event.seq;
                return Some(event);
            }
        }
        None
    }

    /// The first seqs that are missing: from behind the position to before what is held, or to what is known.
    pub(crate) fn missing(&self) -> Option<(Seq, Seq)> {
        let up_to = self
            .held
            .first_key_value()
            .map_or(self.known, |(seq, _)| seq - 1);
        self.has_gap().then_some((self.position, up_to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(seq: Seq) -> LogEvent {
        LogEvent {
            seq,
            r#type: EventType::MessageCreated,
            target: None,
            body: Arc::new(Broadcast::new(seq.to_string().as_bytes())),
        }
    }

    fn delivered(sequencer: &mut Sequencer, seq: Seq) -> Vec<Seq> {
        let SequenceVerdict::Deliver(first) = sequencer.offer(event(seq)) else {
            return vec![];
        };
        let mut out = vec![first.seq];
        out.extend(std::iter::from_fn(|| sequencer.next_held()).map(|e| e.seq));
        out
    }

    #[test]
    fn early_event_waits_for_missing_ones() {
        let mut sequencer = Sequencer::at(4);
        assert!(matches!(sequencer.offer(event(7)), SequenceVerdict::Gap));
        assert_eq!(sequencer.missing(), Some((4, 6)));
        assert_eq!(delivered(&mut sequencer, 5), [5]);
        assert_eq!(sequencer.missing(), Some((5, 6)));
        assert_eq!(delivered(&mut sequencer, 6), [6, 7]);
        assert_eq!(sequencer.missing(), None);
        assert!(matches!(
            sequencer.offer(event(7)),
            SequenceVerdict::Duplicate
        ));
        sequencer.learn(9);
        assert_eq!(sequencer.missing(), Some((7, 9)));
    }

    /// What is published of a message: as a relay read it before its deletion, as it was read behind it, and the deletion.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Told {
        Stale,
        Emptied,
        Deletion,
    }

    fn told(told: Told) -> LogEvent {
        let (seq, r#type, target, json) = match told {
            Told::Stale => (1, EventType::MessageCreated, None, "old content"),
            Told::Emptied => (1, EventType::MessageCreated, None, "deleted"),
            Told::Deletion => (2, EventType::MessageDeleted, Some(1), "deletion"),
        };
        let body = Arc::new(Broadcast::new(json.as_bytes()));
        LogEvent {
            seq,
            r#type,
            target,
            body,
        }
    }

    proptest! {
        #[test]
        fn old_content_never_follows_its_deletion(
            order in prop::collection::vec(prop::sample::select(vec![Told::Stale, Told::Emptied, Told::Deletion]), 1..12),
        ) {
            let mut sequencer = Sequencer::at(0);
            let mut delivered = Vec::new();
            for one in order {
                if let SequenceVerdict::Deliver(first) = sequencer.offer(told(one)) {
                    delivered.push(first);
                    delivered.extend(std::iter::from_fn(|| sequencer.next_held()));
                }
            }
            let seqs: Vec<_> = delivered.iter().map(|event| event.seq).collect();
            prop_assert!([&[][..], &[1], &[1, 2]].contains(&seqs.as_slice()), "{seqs:?}");
        }

        #[test]
        fn any_order_is_delivered_once_and_in_order(mut seqs in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(), repeats in prop::collection::vec(1..=60_u64, 0..40)) {
            seqs.extend(repeats);
            let mut sequencer = Sequencer::at(0);
            let mut out = Vec::new();
            for seq in seqs {
                out.extend(delivered(&mut sequencer, seq));
            }
            prop_assert_eq!(out, (1..=60).collect::<Vec<_>>());
            prop_assert!(!sequencer.has_gap());
        }
    }
}
