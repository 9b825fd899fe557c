//! A conversation with local members: its order, and a cursor for each membership of each session.

use std::time::Instant;

use confab_protocol::ids::{ConversationId, Seq, TenantId};

use super::members::Members;
use super::pushing::{Backlog, CHUNK_SUBSCRIPTIONS, Delivered};
use super::subscription::Subscription;
use super::subscriptions::Subscriptions;
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
    subscriptions: Subscriptions,
    /// Events that are on their way through subscriptions too many to be pushed to in one go.
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
            subscriptions: Subscriptions::new(),
            backlog: None,
        }
    }

    /// The highest seq that is known to exist: a worker named it, or it was heard. Whoever is served from memory is served up to here
    /// without a hole, or it may be content that was edited or deleted since.
    pub(super) const fn head(&self) -> Seq {
        self.sequencer.known()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscriptions.len() == 0
    }

    /// How many memberships sessions have.
    pub(super) fn entry_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// Every membership of every session.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter()
    }

    /// Adds a subscription, unless the session has one with that joining: then only its end may be new. Says whether it was added.
    pub(super) fn enter(&mut self, subscription: Subscription) -> bool {
        let session = subscription.session();
        if let Some(there) = self.entry(session, subscription.joined()) {
            there.ends(subscription.left());
            return false;
        }
        self.subscriptions.insert(subscription);
        for later in self.subscriptions.of_mut(session).iter_mut().skip(1) {
            later.set_waiting(true);
        }
        true
    }

    /// The subscription of a session with this joining.
    pub(super) fn entry(&mut self, session: SessionKey, joined: Seq) -> Option<&mut Subscription> {
        let mut own = self.subscriptions.of_mut(session).iter_mut();
        own.find(|subscription| subscription.joined() == joined)
    }

    /// The subscriptions of a session.
    pub(super) fn entries_of(&self, session: SessionKey) -> &[Subscription] {
        self.subscriptions.of(session)
    }

    /// The joining of the session's first subscription that has not ended: later ones wait for it.
    pub(super) fn first_of(&self, session: SessionKey) -> Option<Seq> {
        self.first_entry(session).map(Subscription::joined)
    }

    /// The session's first subscription that has not ended.
    pub(super) fn first_entry(&self, session: SessionKey) -> Option<&Subscription> {
        self.entries_of(session).first()
    }

    /// Whether the session opened as a member by a later joining: what was over by then it is not owed.
    pub(super) fn opened_behind(&self, session: SessionKey, joined: Seq) -> bool {
        let mut own = self.entries_of(session).iter();
        own.any(|subscription| subscription.is_opened() && subscription.joined() > joined)
    }

    /// The joining of the session's last subscription.
    pub(super) fn last_of(&self, session: SessionKey) -> Option<Seq> {
        self.entries_of(session).last().map(Subscription::joined)
    }

    /// The present membership of a session, as far as that was delivered to it or is to be.
    pub(super) fn listener(&self, session: SessionKey) -> Option<&Subscription> {
        self.entries_of(session)
            .iter()
            .find(|subscription| subscription.listens())
    }

    /// Whether a membership of the session may have ended unheard.
    pub(super) fn is_unproven(&self, session: SessionKey) -> bool {
        let mut own = self.entries_of(session).iter();
        own.any(|subscription| subscription.unacked().is_some())
    }

    /// The memberships of a session end with `seq`.
    pub(super) fn end_of(&mut self, session: SessionKey, seq: Seq) {
        for subscription in self.subscriptions.of_mut(session) {
            subscription.ends_by(seq);
        }
    }

    /// All memberships end with `seq`.
    pub(super) fn end_all(&mut self, seq: Seq) {
        for subscription in self.subscriptions.iter_mut() {
            subscription.ends_by(seq);
        }
    }

    /// Pushes an event to every subscription whose very next one it is, and ends those that end with it: in one go where they are
    /// few, else by and by, as [`Self::push_on`] is called.
    pub(super) fn push(
        &mut self,
        id: ConversationId,
        event: &LogEvent,
        read: Instant,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        if self.backlog.is_none() && self.subscriptions.len() <= CHUNK_SUBSCRIPTIONS {
            let push = |subscription: &mut Subscription| delivered.push(subscription, id, [event]);
            self.subscriptions.take_turns(None, usize::MAX, push);
        } else {
            self.backlog
                .get_or_insert_default()
                .add(event.clone(), read);
        }
        delivered
    }

    /// Whether events are on their way through the subscriptions.
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

    /// Pushes the events on their way to the subscriptions whose turn it is.
    pub(super) fn push_on(&mut self, id: ConversationId) -> Delivered {
        let mut delivered = Delivered::default();
        if let Some(backlog) = &mut self.backlog
            && backlog.push_on(&mut self.subscriptions, id, &mut delivered)
        {
            self.backlog = None;
        }
        delivered
    }

    pub(super) fn remove(&mut self, session: SessionKey, joined: Seq) {
        self.subscriptions.remove((session, joined));
    }

    pub(super) fn remove_session(&mut self, session: SessionKey) {
        while let Some(joined) = self.first_of(session) {
            self.remove(session, joined);
        }
    }
}
