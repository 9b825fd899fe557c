//! A conversation with local members: its order, and a cursor for each membership of each session.

use std::time::Instant;

use confab_protocol::ids::{ConversationId, Seq, TenantId};

use super::entries::Entries;
use super::entry::Entry;
use super::members::Members;
use super::pushing::{Backlog, CHUNK_SUBSCRIPTIONS, Delivered};
use crate::account::SessionKey;
use crate::delivery::sequencer::{LogEvent, Sequencer};

/// A conversation with local members.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) tenant: TenantId,
    pub(super) sequencer: Sequencer,
    pub(super) gap: Gap,
    pub(super) members: Members,
    /// When its order began here, by the hub's clock.
    pub(super) begun: u64,
    entries: Entries,
    /// Events that are on their way through entries too many to be pushed to in one go.
    backlog: Option<Box<Backlog>>,
}

/// Whether someone looks after the gap in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// There was none.
    None,
    /// It is watched, or being read.
    Watched,
}

impl Conversation {
    /// A conversation whose order is known up to `position`.
    pub(super) const fn at(tenant: TenantId, position: Seq, members: Members, begun: u64) -> Self {
        Self {
            tenant,
            sequencer: Sequencer::at(position),
            gap: Gap::None,
            members,
            begun,
            entries: Entries::new(),
            backlog: None,
        }
    }

    /// The highest seq that is known to exist: a worker named it, or it was heard. Whoever is served from memory is served up to here
    /// without a hole, or it may be content that was edited or deleted since.
    pub(super) const fn head(&self) -> Seq {
        self.sequencer.known()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// How many memberships sessions have.
    pub(super) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Every membership of every session.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Adds an entry, unless the session has one with that joining: then only its end may be new. Says whether it was added.
    pub(super) fn enter(&mut self, entry: Entry) -> bool {
        let session = entry.session();
        if let Some(there) = self.entry(session, entry.joined()) {
            there.ends(entry.left());
            return false;
        }
        self.entries.insert(entry);
        for later in self.entries.of_mut(session).iter_mut().skip(1) {
            later.set_waiting(true);
        }
        true
    }

    /// The entry of a session with this joining.
    pub(super) fn entry(&mut self, session: SessionKey, joined: Seq) -> Option<&mut Entry> {
        let mut own = self.entries.of_mut(session).iter_mut();
        own.find(|entry| entry.joined() == joined)
    }

    /// The entries of a session.
    pub(super) fn entries_of(&self, session: SessionKey) -> &[Entry] {
        self.entries.of(session)
    }

    /// The joining of the session's first entry that has not ended: later ones wait for it.
    pub(super) fn first_of(&self, session: SessionKey) -> Option<Seq> {
        self.first_entry(session).map(Entry::joined)
    }

    /// The session's first entry that has not ended.
    pub(super) fn first_entry(&self, session: SessionKey) -> Option<&Entry> {
        self.entries_of(session).first()
    }

    /// Whether the session opened as a member by a later joining: what was over by then it is not owed.
    pub(super) fn opened_behind(&self, session: SessionKey, joined: Seq) -> bool {
        let mut own = self.entries_of(session).iter();
        own.any(|entry| entry.is_opened() && entry.joined() > joined)
    }

    /// The joining of the session's last entry.
    pub(super) fn last_of(&self, session: SessionKey) -> Option<Seq> {
        self.entries_of(session).last().map(Entry::joined)
    }

    /// The present membership of a session, as far as that was delivered to it or is to be.
    pub(super) fn listener(&self, session: SessionKey) -> Option<&Entry> {
        self.entries_of(session)
            .iter()
            .find(|entry| entry.listens())
    }

    /// Whether a membership of the session may have ended unheard.
    pub(super) fn is_unproven(&self, session: SessionKey) -> bool {
        let mut own = self.entries_of(session).iter();
        own.any(|entry| entry.unacked().is_some())
    }

    /// The memberships of a session end with `seq`.
    pub(super) fn end_of(&mut self, session: SessionKey, seq: Seq) {
        for entry in self.entries.of_mut(session) {
            entry.ends_by(seq);
        }
    }

    /// All memberships end with `seq`.
    pub(super) fn end_all(&mut self, seq: Seq) {
        for entry in self.entries.iter_mut() {
            entry.ends_by(seq);
        }
    }

    /// Pushes an event to every entry whose very next one it is, and ends those that end with it: in one go where they are
    /// few, else by and by, as [`Self::push_on`] is called.
    pub(super) fn push(
        &mut self,
        id: ConversationId,
        event: &LogEvent,
        read: Instant,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        if self.backlog.is_none() && self.entries.len() <= CHUNK_SUBSCRIPTIONS {
            let push = |entry: &mut Entry| delivered.push(entry, id, [event]);
            self.entries.take_turns(None, usize::MAX, push);
        } else {
            self.backlog
                .get_or_insert_default()
                .add(event.clone(), read);
        }
        delivered
    }

    /// Whether events are on their way through the entries.
    pub(super) const fn is_pushing(&self) -> bool {
        self.backlog.is_some()
    }

    /// When the oldest of them was read.
    pub(super) fn oldest_on_their_way(&self) -> Option<Instant> {
        self.backlog.as_ref()?.oldest()
    }

    /// How many are.
    pub(super) fn on_their_way(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Whether as many are as may be: then no other is pushed before some are through.
    pub(super) fn is_full(&self) -> bool {
        self.backlog
            .as_ref()
            .is_some_and(|backlog| backlog.is_full())
    }

    /// Pushes the events on their way to the entries whose turn it is.
    pub(super) fn push_on(&mut self, id: ConversationId) -> Delivered {
        let mut delivered = Delivered::default();
        if let Some(backlog) = &mut self.backlog
            && backlog.push_on(&mut self.entries, id, &mut delivered)
        {
            self.backlog = None;
        }
        delivered
    }

    pub(super) fn remove(&mut self, session: SessionKey, joined: Seq) {
        self.entries.remove((session, joined));
    }

    pub(super) fn remove_session(&mut self, session: SessionKey) {
        while let Some(joined) = self.first_of(session) {
            self.remove(session, joined);
        }
    }
}
