//! The replay window: the recent events of every conversation, so that who comes back is caught up from memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

use crate::sequencer::LogEvent;

/// What an event costs beside its frame: its places in the maps and in the order of arrival.
const OVERHEAD: usize = 192;

/// How much a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// For how long an event is held.
    pub(crate) age: Duration,
    /// Bytes of all events, what they cost in memory included; 0 holds nothing.
    pub(crate) bytes: usize,
}

/// Recent events by conversation. What was edited or deleted away is not among them.
#[derive(Debug)]
pub(crate) struct Window {
    bounds: Bounds,
    conversations: FxHashMap<ConversationId, Recent>,
    /// In the order of their arrival; what was forgotten since still stands here.
    arrived: VecDeque<(Instant, ConversationId, Seq)>,
    bytes: usize,
    events: usize,
}

#[derive(Debug, Default)]
struct Recent {
    events: BTreeMap<Seq, LogEvent>,
    /// By message: its last change that is held.
    changes: FxHashMap<Seq, Seq>,
}

impl Recent {
    /// Whether a later change that is held makes the event's content void.
    fn is_void(&self, event: &LogEvent) -> bool {
        let message = match event.r#type {
            EventType::MessageCreated => Some(event.seq),
            EventType::MessageEdited => event.target,
            _ => None,
        };
        let change = message.and_then(|message| self.changes.get(&message));
        change.is_some_and(|change| *change > event.seq)
    }
}

impl Window {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            conversations: FxHashMap::default(),
            arrived: VecDeque::new(),
            bytes: 0,
            events: 0,
        }
    }

    /// Whether it holds nothing at all.
    pub(crate) const fn is_off(&self) -> bool {
        self.bounds.bytes == 0
    }

    /// How many events it holds.
    pub(crate) const fn events(&self) -> usize {
        self.events
    }

    /// How many bytes they cost.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes an event, in whatever order they come; forgets what it makes void, and what is too old or too much.
    pub(crate) fn note(&mut self, id: ConversationId, event: &LogEvent, now: Instant) {
        if self.is_off() {
            return;
        }
        let recent = self.conversations.entry(id).or_default();
        if recent.events.contains_key(&event.seq) || recent.is_void(event) {
            self.forget_empty(id);
            self.expire(now);
            return;
        }
        let mut freed = Vec::new();
        if let Some(message) = event.target.filter(|_| event.r#type.changes_message()) {
            freed.extend(recent.events.remove(&message));
            let former = recent.changes.get(&message).copied();
            let last = former.map_or(event.seq, |former| former.max(event.seq));
            recent.changes.insert(message, last);
            let edit = former.filter(|former| {
                let there = recent.events.get(former);
                there.is_some_and(|there| there.r#type == EventType::MessageEdited)
            });
            // A deletion that comes behind a later one, from another worker, voids nothing.
            freed.extend(
                edit.filter(|edit| *edit < event.seq)
                    .and_then(|edit| recent.events.remove(&edit)),
            );
        }
        recent.events.insert(event.seq, event.clone());
        self.arrived.push_back((now, id, event.seq));
        self.bytes += cost(event);
        self.events += 1;
        for event in freed {
            self.bytes -= cost(&event);
            self.events -= 1;
        }
        self.expire(now);
    }

    /// Forgets what is too old or too much.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, id, seq)) = self.arrived.front().copied() {
            let is_old = now.duration_since(at) > self.bounds.age;
            if !is_old && self.bytes <= self.bounds.bytes {
                return;
            }
            self.arrived.pop_front();
            self.forget(id, seq);
        }
    }

    /// The events behind `after`, one after the other, as far as they are held without a hole.
    pub(crate) fn behind(&self, id: ConversationId, after: Seq) -> impl Iterator<Item = &LogEvent> {
        let recent = self.conversations.get(&id);
        let events = recent
            .into_iter()
            .flat_map(move |recent| recent.events.range(after + 1..));
        (after + 1..)
            .zip(events)
            .take_while(|(due, (seq, _))| due == *seq)
            .map(|(_, (_, event))| event)
    }

    /// What the events of a range would put on a wire, in bytes, where all of them are held.
    pub(crate) fn weight(&self, id: ConversationId, after: Seq, up_to: Seq) -> Option<usize> {
        let (mut last, mut bytes) = (after, 0);
        for event in self
            .behind(id, after)
            .take_while(|event| event.seq <= up_to)
        {
            last = event.seq;
            bytes += event.bytes();
        }
        (last >= up_to).then_some(bytes)
    }

    /// The highest seq held of a conversation; 0 when there is none.
    pub(crate) fn highest(&self, id: ConversationId) -> Seq {
        let recent = self.conversations.get(&id);
        let last = recent.and_then(|recent| recent.events.last_key_value());
        last.map_or(0, |(seq, _)| *seq)
    }

    fn forget(&mut self, id: ConversationId, seq: Seq) {
        let Some(recent) = self.conversations.get_mut(&id) else {
            return;
        };
        if let Some(event) = recent.events.remove(&seq) {
            self.bytes -= cost(&event);
            self.events -= 1;
            if let Some(message) = event.target
                && recent.changes.get(&message) == Some(&seq)
            {
                recent.changes.remove(&message);
            }
        }
        self.forget_empty(id);
    }

    fn forget_empty(&mut self, id: ConversationId) {
        if self
            .conversations
            .get(&id)
            .is_some_and(|recent| recent.events.is_empty())
        {
            self.conversations.remove(&id);
        }
    }
}

fn cost(event: &LogEvent) -> usize {
    event.bytes() + OVERHEAD
}

#[cfg(test)]
mod tests;
