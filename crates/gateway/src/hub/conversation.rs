//! A conversation with local members: its order, and a cursor for each membership of each session.

use std::collections::{BTreeMap, btree_map};
use std::ops::RangeInclusive;
use std::sync::Arc;

use confab_protocol::event::MembershipChange;
use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};

use super::members::Members;
use super::pushing::{AT_ONCE, Backlog, Delivered};
use super::{Account, SessionKey};
use crate::sequencer::{LogEvent, Sequencer};
use crate::ws::codec::Broadcast;
use crate::ws::outbox::{Outbox, Place};

/// By session and joining, so that none is looked for among those of thousands of others.
pub(super) type Entries = BTreeMap<(SessionKey, Seq), Entry>;

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

/// From where an entry begins to hear.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begin {
    /// The last seq that is not owed.
    pub(super) cursor: Seq,
    /// Up to here the client has it, whatever the cursor says: nothing of that is queued.
    pub(super) skip: Seq,
    /// Up to here it replays what was missed while the session was away.
    pub(super) replay_to: Seq,
    /// Whether the session's record says so, and no worker did yet.
    pub(super) by_record: bool,
}

impl Begin {
    pub(super) const fn at(cursor: Seq) -> Self {
        Self {
            cursor,
            skip: 0,
            replay_to: 0,
            by_record: false,
        }
    }
}

/// What became of an event at an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is not the next one there, or may not come yet.
    NotNext,
    /// It is the next one, and the client is behind: it comes again when there is room.
    NoRoom,
    Queued,
    /// It is queued, and the membership ended with it.
    Ended,
}

/// One membership of one session.
#[derive(Debug)]
pub(super) struct Entry {
    session: SessionKey,
    account: Arc<Account>,
    pub(super) outbox: Arc<Outbox>,
    joined: Seq,
    pub(super) left: Option<Seq>,
    /// Whether the session opened with it.
    opened: bool,
    /// The last seq pushed, or not owed.
    pub(super) cursor: Seq,
    /// Up to here the client has it, whatever the cursor says: nothing of that is queued.
    pub(super) skip: Seq,
    /// Up to here it replays what was missed while the session was away.
    pub(super) replay_to: Seq,
    /// Whether what it lacks is on its way.
    pub(super) reading: bool,
    /// Whether an earlier membership of the session here has not ended yet: nothing may come before its end.
    pub(super) waiting: bool,
}

impl Entry {
    pub(super) fn new(
        session: SessionKey,
        account: &Arc<Account>,
        outbox: Arc<Outbox>,
        joined: Seq,
        left: Option<Seq>,
        begin: Begin,
    ) -> Self {
        let Begin {
            cursor,
            skip,
            replay_to,
            by_record: _,
        } = begin;
        Self {
            session,
            account: Arc::clone(account),
            outbox,
            joined,
            left,
            // Every other membership is entered from just before its joining.
            opened: cursor >= joined,
            cursor,
            skip,
            replay_to,
            reading: false,
            waiting: false,
        }
    }

    pub(super) const fn session(&self) -> SessionKey {
        self.session
    }

    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Up to where it may be pushed now, where the order here stands at `position`.
    pub(super) fn goal(&self, position: Seq) -> Seq {
        self.left.map_or(position, |left| left.min(position))
    }

    pub(super) const fn joined(&self) -> Seq {
        self.joined
    }

    /// Pushes an event when it is the very next one.
    pub(super) fn push(&mut self, id: ConversationId, seq: Seq, event: &Broadcast) -> Pushed {
        if self.cursor + 1 != seq || self.waiting || self.left.is_some_and(|left| seq > left) {
            return Pushed::NotNext;
        }
        let place = Place {
            conversation: id,
            joined: self.joined,
            seq,
        };
        if seq > self.skip && !self.outbox.push_event(place, event) {
            return Pushed::NoRoom;
        }
        self.cursor = seq;
        if self.left == Some(seq) {
            Pushed::Ended
        } else {
            Pushed::Queued
        }
    }

    /// Pushes an event that was read to catch up. An ending that stands there is heeded: it may have committed before anyone
    /// here listened.
    pub(super) fn replay(&mut self, id: ConversationId, event: &LogEvent) -> Pushed {
        if event.seq > self.joined && self.left.is_none() {
            let ends = match event.membership_change() {
                Some(MembershipChange::Left(user)) => user == self.account.user,
                Some(MembershipChange::Ended) => true,
                Some(MembershipChange::Joined(_)) | None => false,
            };
            self.left = ends.then_some(event.seq);
        }
        self.push(id, event.seq, &event.body)
    }
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
            entries: BTreeMap::new(),
            backlog: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every membership of every session.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Adds an entry, unless the session has one with that joining: then only its end may be new.
    pub(super) fn enter(&mut self, entry: Entry) {
        let session = entry.session;
        match self.entries.entry((session, entry.joined)) {
            btree_map::Entry::Occupied(there) => {
                let there = there.into_mut();
                there.left = there.left.or(entry.left);
            }
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
                let own = self.entries.range_mut(of(session));
                for (_, later) in own.skip(1) {
                    later.waiting = true;
                }
            }
        }
    }

    /// The entry of a session with this joining.
    pub(super) fn entry(&mut self, session: SessionKey, joined: Seq) -> Option<&mut Entry> {
        self.entries.get_mut(&(session, joined))
    }

    /// The entries of a session.
    pub(super) fn entries_of(
        &self,
        session: SessionKey,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.range(of(session)).map(|(_, entry)| entry)
    }

    /// The joining of the session's first entry that has not ended: later ones wait for it.
    pub(super) fn first_of(&self, session: SessionKey) -> Option<Seq> {
        self.first_entry(session).map(Entry::joined)
    }

    /// The session's first entry that has not ended.
    pub(super) fn first_entry(&self, session: SessionKey) -> Option<&Entry> {
        self.entries_of(session).next()
    }

    /// Whether the session opened as a member by a later joining: what was over by then it is not owed.
    pub(super) fn opened_behind(&self, session: SessionKey, joined: Seq) -> bool {
        let mut own = self.entries_of(session);
        own.any(|entry| entry.opened && entry.joined > joined)
    }

    /// The joining of the session's last entry.
    pub(super) fn last_of(&self, session: SessionKey) -> Option<Seq> {
        self.entries_of(session).next_back().map(Entry::joined)
    }

    /// Whether the session's user is a member, as far as that was delivered to it or is to be.
    pub(super) fn listens(&self, session: SessionKey) -> bool {
        self.entries_of(session).any(|entry| entry.left.is_none())
    }

    /// A user's membership ends with `seq`.
    pub(super) fn end_of(&mut self, user: &UserId, seq: Seq) {
        self.end_where(seq, |entry| entry.account.user == *user);
    }

    /// All memberships end with `seq`.
    pub(super) fn end_all(&mut self, seq: Seq) {
        self.end_where(seq, |_| true);
    }

    fn end_where(&mut self, seq: Seq, is_meant: impl Fn(&Entry) -> bool) {
        for entry in self.entries.values_mut() {
            if entry.joined < seq && entry.left.is_none() && is_meant(entry) {
                entry.left = Some(seq);
            }
        }
    }

    /// Pushes an event to every entry whose very next one it is, and ends those that end with it: in one go where they are
    /// few, else by and by, as [`Self::push_on`] is called.
    pub(super) fn push(&mut self, id: ConversationId, event: &LogEvent) -> Delivered {
        let mut delivered = Delivered::default();
        if self.backlog.is_none() && self.entries.len() <= AT_ONCE {
            self.entries
                .retain(|_, entry| delivered.push(entry, id, [event]));
        } else {
            self.backlog.get_or_insert_default().add(event.clone());
        }
        delivered
    }

    /// Whether events are on their way through the entries.
    pub(super) const fn is_pushing(&self) -> bool {
        self.backlog.is_some()
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
        self.entries.remove(&(session, joined));
    }

    pub(super) fn remove_session(&mut self, session: SessionKey) {
        while let Some(joined) = self.first_of(session) {
            self.remove(session, joined);
        }
    }
}

/// Where the entries of a session stand.
const fn of(session: SessionKey) -> RangeInclusive<(SessionKey, Seq)> {
    (session, Seq::MIN)..=(session, Seq::MAX)
}
