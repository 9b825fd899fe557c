//! Events to the subscriptions of a conversation: in one go, or, where there are many, by and by, so that others have turns between.

use std::collections::VecDeque;
use std::time::Instant;

use confab_protocol::ids::{ConversationId, Seq};

use super::subscription::{PushOutcome, Subscription};
use super::subscriptions::{SubscriptionKey, Subscriptions};
use crate::account::SessionKey;
use crate::delivery::sequencer::LogEvent;

/// Entries that are pushed to in one go: meanwhile nobody else has a turn.
pub(super) const CHUNK_SUBSCRIPTIONS: usize = if cfg!(test) { 2 } else { 64 };
/// Turns that a fan-out has at most: past that they are longer, so that the pauses between them do not make it as much longer.
const MAX_CHUNKS: usize = 64;
/// Events that may be on their way through the subscriptions, and their bytes.
const MAX_BACKLOG_EVENTS: usize = if cfg!(test) { 4 } else { 256 };
const BACKLOG_BYTES: usize = 1024 * 1024;

/// What became of an event at all subscriptions of a conversation.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Those that ended with it, and where.
    pub(super) ended: Vec<(SessionKey, Seq)>,
    /// Those that had no room for it.
    pub(super) behind: Vec<SessionKey>,
}

impl Delivered {
    /// Pushes events, one behind the other, to a subscription; says whether it goes on.
    pub(super) fn push<'a>(
        &mut self,
        subscription: &mut Subscription,
        id: ConversationId,
        events: impl IntoIterator<Item = &'a LogEvent>,
    ) -> bool {
        // A subscription whose membership may have ended reads its own events.
        if subscription.unacked().is_some() {
            return true;
        }
        let had = subscription.cursor;
        for event in events.into_iter().skip_while(|event| event.seq <= had) {
            match subscription.push(id, event.seq, &event.body) {
                PushOutcome::Queued => {}
                PushOutcome::NotNext => break,
                PushOutcome::NoRoom => {
                    self.behind.push(subscription.session());
                    break;
                }
                PushOutcome::Ended => {
                    self.ended.push((subscription.session(), event.seq));
                    return false;
                }
            }
        }
        true
    }
}

/// Events on their way through the subscriptions, which are taken in turn: each is pushed all of those that it has not had.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    events: VecDeque<LogEvent>,
    /// When each of them was read.
    read: VecDeque<Instant>,
    bytes: usize,
    /// Whose turn it is; the first one's where a round begins.
    next: Option<SubscriptionKey>,
    /// How many of the events were there when the round began: those everyone has had at its end.
    round: usize,
}

impl Backlog {
    /// One more event, the next one in the order.
    pub(super) fn add(&mut self, event: LogEvent, read: Instant) {
        self.read.push_back(read);
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    /// When the oldest of them was read.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.read.front().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are as many as may be.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= MAX_BACKLOG_EVENTS || self.bytes >= BACKLOG_BYTES
    }

    /// Pushes to the subscriptions whose turn it is, and removes those that end; says whether every event has come everywhere.
    pub(super) fn push_on(
        &mut self,
        subscriptions: &mut Subscriptions,
        id: ConversationId,
        delivered: &mut Delivered,
    ) -> bool {
        if self.next.is_none() {
            self.round = self.events.len();
        }
        let turn = CHUNK_SUBSCRIPTIONS.max(subscriptions.len() / MAX_CHUNKS);
        let push = |subscription: &mut Subscription| delivered.push(subscription, id, &self.events);
        self.next = subscriptions.take_turns(self.next, turn, push);
        if self.next.is_none() {
            let through: usize = self.events.drain(..self.round).map(|one| one.bytes()).sum();
            self.bytes -= through;
            self.read.drain(..self.round.min(self.read.len()));
        }
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use confab_protocol::event::EventType;

    use super::*;
    use crate::delivery::broadcast::Broadcast;

    #[test]
    fn few_large_events_fill_backlog() {
        let mut backlog = Backlog::default();
        let large = |seq| LogEvent {
            seq,
            r#type: EventType::MessageCreated,
            target: None,
            body: Arc::new(Broadcast::new(&[b' '; BACKLOG_BYTES / 2])),
        };
        let read = Instant::now();
        backlog.add(large(1), read);
        assert!(!backlog.is_full());
        backlog.add(large(2), read);
        assert_eq!(backlog.oldest(), Some(read));
        assert!(backlog.is_full());
        let (mut subscriptions, mut delivered) = (Subscriptions::new(), Delivered::default());
        let id = ConversationId(uuid::Uuid::nil());
        assert!(backlog.push_on(&mut subscriptions, id, &mut delivered));
        assert!(!backlog.is_full());
        assert_eq!(backlog.oldest(), None);
    }
}
