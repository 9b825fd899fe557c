//! The replay window: the recent events of every conversation, so that who comes back is caught up from memory.
//!
//! A range is served only where every seq of it is held up to the head that proves it, and up to the highest seq that was heard.
//! Whatever edited or deleted a message of the range then lies in it as well, and the message itself is not held: so what is
//! served is the present content, in whatever order events come and are forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

use crate::delivery::high_water::HighWaterMarks;
use crate::delivery::sequencer::LogEvent;

mod recent;
mod runs;

use recent::{Recent, RecentEvent};

/// What an event costs beside its frame: its places in the maps and in the order of arrival.
const OVERHEAD_BYTES: usize = 256;
/// Conversations of which nothing is held whose highest seq is remembered, about: twice as many at most.
const MAX_REMEMBERED: usize = 100_000;
/// Unservable events evicted for each insert, so that an insert stays short.
const MAX_UNSERVABLE_A_STEP: usize = 8;
/// The first place of events that are new: those of the stream's past come before them, and go first.
const FIRST_NEW_PLACE: u64 = 1 << 63;

/// How much a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// For how long an event is held.
    pub(crate) age: Duration,
    /// Bytes of all events, what they cost in memory included; 0 holds nothing.
    pub(crate) bytes: usize,
}

/// Recent events by conversation.
#[derive(Debug)]
pub(crate) struct Window {
    bounds: Bounds,
    conversations: FxHashMap<ConversationId, Recent>,
    /// The highest seqs heard of conversations of which nothing is held: of those nothing at or below can be served.
    remembered: HighWaterMarks,
    /// In the order in which they are given up.
    arrived: BTreeMap<u64, Arrived>,
    /// The next place of an event of the past, and of a new one.
    next_past: u64,
    next_new: u64,
    filling: WindowFill,
    began: Instant,
    bytes: usize,
}

/// Whether events of the stream's past may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowFill {
    /// They come: nothing that was heard meanwhile is forgotten.
    Open,
    /// They come, and are not taken: too much was heard meanwhile.
    Refused,
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Arrived {
    at: Instant,
    conversation: ConversationId,
    seq: Seq,
}

impl Window {
    /// An empty window, which is filled with the stream's past until [`Self::filled`].
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            conversations: FxHashMap::default(),
            remembered: HighWaterMarks::new(bounds.age, now),
            arrived: BTreeMap::new(),
            next_past: 0,
            next_new: FIRST_NEW_PLACE,
            filling: WindowFill::Open,
            began: now,
            bytes: 0,
        }
    }

    /// Whether it holds nothing at all.
    pub(crate) const fn is_off(&self) -> bool {
        self.bounds.bytes == 0
    }

    /// How many events it holds.
    pub(crate) fn events(&self) -> usize {
        self.arrived.len()
    }

    /// How many bytes they cost.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a new event, in whatever order they come; forgets what it makes void, and what is too old or too much.
    pub(crate) fn note(&mut self, id: ConversationId, event: &LogEvent, now: Instant) {
        let arrived = Arrived {
            at: now,
            conversation: id,
            seq: event.seq,
        };
        if !self.is_off() && self.take(arrived, self.next_new, event, now) {
            self.next_new += 1;
        }
        self.expire(now);
    }

    /// Takes an event of the stream's past: it is older than every new one, whenever it comes.
    pub(crate) fn fill(&mut self, id: ConversationId, event: &LogEvent, now: Instant) {
        if self.is_off() || self.filling != WindowFill::Open {
            return;
        }
        let arrived = Arrived {
            at: self.began,
            conversation: id,
            seq: event.seq,
        };
        if self.take(arrived, self.next_past, event, now) {
            self.next_past += 1;
        }
        self.expire(now);
    }

    /// Nothing more comes of the past.
    pub(crate) const fn filled(&mut self) {
        self.filling = WindowFill::Ended;
    }

    /// Takes an event; says whether it is held.
    fn take(&mut self, arrived: Arrived, place: u64, event: &LogEvent, now: Instant) -> bool {
        let id = arrived.conversation;
        let remembered = &self.remembered;
        let recent = self
            .conversations
            .entry(id)
            .or_insert_with(|| Recent::above(remembered.highest(id)));
        let replaced = recent.take(event, place);
        let is_taken = replaced.is_some();
        if is_taken {
            self.arrived.insert(place, arrived);
            self.bytes += cost(event);
        }
        for held in replaced.into_iter().flatten() {
            self.gone(&held);
        }
        self.give_up_unservable(id);
        self.forget_empty(id, now);
        is_taken
    }

    fn gone(&mut self, held: &RecentEvent) {
        self.arrived.remove(&held.place);
        self.bytes -= cost(&held.event);
    }

    fn give_up_unservable(&mut self, id: ConversationId) {
        for _ in 0..MAX_UNSERVABLE_A_STEP {
            let recent = self.conversations.get_mut(&id);
            let held = recent.and_then(|recent| recent.forget(recent.first_unservable()?));
            match held {
                Some(held) => self.gone(&held),
                None => return,
            }
        }
    }

    /// Forgets what is too old or too much.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.arrived.first_entry() {
            let Arrived {
                at,
                conversation,
                seq,
            } = *entry.get();
            let is_old = now.saturating_duration_since(at) > self.bounds.age;
            if !is_old && self.bytes <= self.bounds.bytes {
                return;
            }
            entry.remove();
            let recent = self.conversations.get_mut(&conversation);
            if let Some(held) = recent.and_then(|recent| recent.forget(seq)) {
                self.bytes -= cost(&held.event);
            }
            self.forget_empty(conversation, now);
        }
    }

    fn forget_empty(&mut self, id: ConversationId, now: Instant) {
        let recent = self.conversations.get(&id);
        if let Some(floor) = recent.filter(|recent| recent.is_empty()).map(Recent::floor) {
            self.conversations.remove(&id);
            self.remember(id, floor, now);
        }
    }

    /// Nothing is held of a conversation: what was heard of it counts for as long as anything older may come.
    fn remember(&mut self, id: ConversationId, floor: Seq, now: Instant) {
        if self.remembered.noted() >= MAX_REMEMBERED {
            if self.filling == WindowFill::Open {
                self.filling = WindowFill::Refused;
            }
            self.remembered.turn_over(now);
        }
        self.remembered.note(id, floor, now);
    }

    /// The events behind `after`, where all of them are held up to `head` and to the highest seq heard.
    pub(crate) fn behind(
        &self,
        id: ConversationId,
        after: Seq,
        head: Seq,
    ) -> Option<impl Iterator<Item = &LogEvent>> {
        let recent = self.conversations.get(&id)?;
        let from = recent.held_from(head)?;
        (from <= after.saturating_add(1)).then(|| recent.behind(after))
    }

    /// From which seq on [`Self::behind`] has everything up to `head`.
    pub(crate) fn held_from(&self, id: ConversationId, head: Seq) -> Option<Seq> {
        self.conversations.get(&id)?.held_from(head)
    }

    /// What the events of a range would put on a wire, in bytes, where all of them are held.
    pub(crate) fn weight(&self, id: ConversationId, after: Seq, up_to: Seq) -> Option<usize> {
        let events = self.behind(id, after, up_to)?;
        let of_range = events.take_while(|event| event.seq <= up_to);
        Some(of_range.map(LogEvent::bytes).sum())
    }

    /// The highest seq heard of a conversation, as far as that is remembered; 0 when there is none.
    pub(crate) fn highest(&self, id: ConversationId) -> Seq {
        match self.conversations.get(&id) {
            Some(recent) => recent.highest(),
            None => self.remembered.highest(id),
        }
    }
}

fn cost(event: &LogEvent) -> usize {
    event.bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
