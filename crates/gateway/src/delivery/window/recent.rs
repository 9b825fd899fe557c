//! The recent events of one conversation, and which of them can be served.

use std::collections::BTreeMap;

use confab_protocol::event::EventType;
use confab_protocol::ids::Seq;
use rustc_hash::FxHashMap;

use super::runs::SeqRuns;
use crate::delivery::sequencer::LogEvent;

/// The recent events of one conversation.
///
/// A range is served only up to the highest seq heard, so nothing at or below an event that is missing for good can be: the floor
/// is the highest such seq, and what is at or below it is taken no more.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: BTreeMap<Seq, RecentEvent>,
    /// Which seqs above the floor are held.
    runs: SeqRuns,
    /// By message: its last change that is held.
    changes: FxHashMap<Seq, Seq>,
    floor: Seq,
}

/// An event that is held, and its place in the order of arrival.
#[derive(Debug)]
pub(super) struct RecentEvent {
    pub(super) event: LogEvent,
    pub(super) place: u64,
}

impl Recent {
    /// Nothing up to `floor` is held any more.
    pub(super) fn above(floor: Seq) -> Self {
        Self {
            floor,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The highest seq that can be served no more.
    pub(super) const fn floor(&self) -> Seq {
        self.floor
    }

    /// The highest seq heard.
    pub(super) fn highest(&self) -> Seq {
        self.runs.last().map_or(self.floor, |(_, last)| last)
    }

    /// Takes an event, where it may still be served. Gives what its content replaces.
    pub(super) fn take(&mut self, event: &LogEvent, place: u64) -> Option<Vec<RecentEvent>> {
        if event.seq <= self.floor || self.events.contains_key(&event.seq) {
            return None;
        }
        let message = event.target.filter(|_| event.r#type.changes_message());
        let mut replaced = Vec::new();
        if let Some(message) = message {
            let last = self.changes.get(&message).copied();
            if last.is_some_and(|last| last > event.seq) && event.r#type == EventType::MessageEdited
            {
                self.raise(event.seq);
                return None;
            }
            replaced.extend(self.replace(message));
            // A deletion that comes behind a later one replaces nothing more.
            if let Some(last) = last.filter(|last| *last < event.seq)
                && self.is_edit(last)
            {
                replaced.extend(self.replace(last));
            }
            let newest = last.map_or(event.seq, |last| last.max(event.seq));
            self.changes.insert(message, newest);
        }
        self.runs.insert(event.seq);
        let event = event.clone();
        self.events.insert(event.seq, RecentEvent { event, place });
        Some(replaced)
    }

    fn is_edit(&self, seq: Seq) -> bool {
        let there = self.events.get(&seq);
        there.is_some_and(|held| held.event.r#type == EventType::MessageEdited)
    }

    /// The content of an event is replaced: it is never served again.
    fn replace(&mut self, seq: Seq) -> Option<RecentEvent> {
        self.raise(seq);
        self.events.remove(&seq)
    }

    fn raise(&mut self, floor: Seq) {
        if floor > self.floor {
            self.floor = floor;
            self.runs.trim(floor);
        }
    }

    /// Forgets an event that was held.
    pub(super) fn forget(&mut self, seq: Seq) -> Option<RecentEvent> {
        let held = self.events.remove(&seq)?;
        self.raise(seq);
        if let Some(message) = held.event.target
            && self.changes.get(&message) == Some(&seq)
        {
            self.changes.remove(&message);
        }
        Some(held)
    }

    /// The first event that is held and can be served no more.
    pub(super) fn first_unservable(&self) -> Option<Seq> {
        let (first, _) = self.events.first_key_value()?;
        (*first <= self.floor).then_some(*first)
    }

    /// The seq from which on everything is held up to `head` and to the highest seq heard; none where those are not.
    pub(super) fn held_from(&self, head: Seq) -> Option<Seq> {
        let (first, last) = self.runs.last()?;
        (last >= head).then_some(first)
    }

    /// The events behind `after`, which are all held.
    pub(super) fn behind(&self, after: Seq) -> impl Iterator<Item = &LogEvent> {
        let from = after.saturating_add(1);
        self.events.range(from..).map(|(_, held)| &held.event)
    }
}
