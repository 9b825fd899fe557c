//! Delivers events in order: pushes them to subscriptions, subscribes added users, and ends the subscriptions of those who left.

use std::sync::Arc;
use std::time::Instant;

use confab_bus::feed::FeedEvent;
use confab_protocol::chain::chain;
use confab_protocol::event::MembershipChange;
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::query::{EncodedEvent, Membership};

use super::Shard;
use super::asking::confirmation;
use super::conversation::Conversation;
use super::members::Members;
use super::pushing::Delivered;
use super::subscription::{StartPosition, Subscription};
use crate::account::{Account, SessionKey};
use crate::delivery::broadcast::Broadcast;
use crate::delivery::sequencer::LogEvent;

/// Conversations that may have events on their way through many subscriptions while more is heard.
pub(super) const MAX_PUSHING_CONVERSATIONS: usize = 32;
/// Events of a conversation that may be on their way while others have some of the time.
const MAX_YIELDING_EVENTS: usize = 2;

impl Shard {
    /// Delivers `first` and whatever was held behind it.
    pub(super) fn deliver_all(&mut self, id: ConversationId, first: Option<LogEvent>) {
        let mut next = first;
        while let Some(event) = next {
            self.deliver(id, &event);
            next = self
                .conversations
                .get_mut(&id)
                .and_then(|conversation| conversation.sequencer.next_held());
        }
        self.watch_gap(id);
        self.forget_if_empty(id);
    }

    pub(super) fn deliver(&mut self, id: ConversationId, event: &LogEvent) {
        let change = event.membership_change();
        if let Some(MembershipChange::Joined(users)) = &change {
            self.add_members(id, users, event.seq);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        conversation.members.delivered(event.seq, change.as_ref());
        match &change {
            Some(MembershipChange::Left(user)) => {
                let account = Account {
                    tenant: conversation.tenant.clone(),
                    user: user.clone(),
                };
                for key in self.present.get(&account).into_iter().flatten() {
                    conversation.end_of(*key, event.seq);
                }
                if conversation.carries_signals() {
                    self.come.leaves(account, id, event.seq);
                }
            }
            Some(MembershipChange::Ended) => conversation.end_all(event.seq),
            Some(MembershipChange::Joined(_)) | None => {}
        }
        let delivered = conversation.push(id, event, self.read);
        // It may still be queued from a fan-out that has ended.
        if conversation.is_pushing() && !self.pushing.contains(&id) {
            self.pushing.push_back(id);
        }
        self.delivered(id, delivered);
        while self
            .conversations
            .get(&id)
            .is_some_and(Conversation::is_full)
        {
            self.push_on_in(id);
        }
    }

    /// Whether events are on their way through the many subscriptions of a conversation: then [`Self::push_on`] is to be called,
    /// and whoever waits for the hub meanwhile may have a turn before.
    pub(crate) fn is_pushing(&self) -> bool {
        !self.pushing.is_empty()
    }

    /// When the oldest of the events on their way was read.
    pub(crate) fn oldest_on_their_way(&self) -> Option<Instant> {
        let walking = self
            .pushing
            .iter()
            .filter_map(|id| self.conversations.get(id));
        walking.filter_map(Conversation::oldest_on_their_way).min()
    }

    /// Whether that is so little that others may have some of the time: of one conversation, and hardly an event more than the one that
    /// began the fan-out.
    pub(crate) fn may_rest(&self) -> bool {
        let mut on_their_way = self.pushing.iter();
        let (first, more) = (on_their_way.next(), on_their_way.next());
        let walking = first.and_then(|id| self.conversations.get(id));
        more.is_none() && walking.is_none_or(|there| there.on_their_way() <= MAX_YIELDING_EVENTS)
    }

    /// Whether more may come from the feed: not while so many conversations have events on their way that these would fall behind
    /// what comes, one turn for each run of the feed.
    pub(crate) fn may_hear(&self) -> bool {
        self.pushing.len() < MAX_PUSHING_CONVERSATIONS
    }

    /// Pushes such events to some more subscriptions.
    pub(crate) fn push_on(&mut self) {
        if let Some(id) = self.pushing.pop_front() {
            self.push_on_in(id);
            let there = self.conversations.get(&id);
            if there.is_some_and(Conversation::is_pushing) {
                self.pushing.push_back(id);
            }
            self.forget_if_empty(id);
        }
    }

    fn push_on_in(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            let delivered = conversation.push_on(id);
            self.delivered(id, delivered);
        }
    }

    fn delivered(&mut self, id: ConversationId, delivered: Delivered) {
        for key in delivered.behind {
            self.is_behind(id, key);
        }
        self.end_entries(id, &delivered.ended);
    }

    /// The sequencer delivers an addition: its local users' subscriptions begin just before it.
    pub(super) fn add_members(&mut self, id: ConversationId, users: &[UserId], joined: Seq) {
        let Some(tenant) = self
            .conversations
            .get(&id)
            .map(|conversation| conversation.tenant.clone())
        else {
            return;
        };
        for user in users {
            let account = Account {
                tenant: tenant.clone(),
                user: user.clone(),
            };
            self.note_addition(&account, id, joined);
            if self.may_have_been_in(&account, id) || self.is_uncounted(&account, id) {
                self.confirm(vec![confirmation(&account, id, joined)]);
            }
            for key in self.present.get(&account).cloned().unwrap_or_default() {
                if self
                    .sessions
                    .get(&key)
                    .is_some_and(|session| session.is_open())
                {
                    let membership = Membership {
                        conversation: id,
                        joined,
                        left: None,
                        head: joined,
                        members: 0,
                    };
                    self.enter(key, membership, StartPosition::at(joined - 1));
                }
            }
        }
    }

    /// Whether a session of the user may have had a membership here that nobody told: its order began here when the session
    /// was open already, behind events of which the session heard nothing.
    fn may_have_been_in(&self, account: &Account, id: ConversationId) -> bool {
        let Some(conversation) = self.conversations.get(&id) else {
            return false;
        };
        let keys = self.present.get(account).into_iter().flatten();
        let mut sessions = keys.filter_map(|key| Some((*key, self.sessions.get(key)?)));
        sessions.any(|(key, session)| {
            session.is_open()
                && session.opened < conversation.begun
                && session.ended.get(id).is_none()
                && conversation.first_of(key).is_none()
        })
    }

    /// Whether nobody may read what the conversation's member count lacks, so that the word of a worker on a user who is here
    /// is wanted.
    fn is_uncounted(&self, account: &Account, id: ConversationId) -> bool {
        let there = self.conversations.get(&id);
        there.is_some_and(|there| there.members.is_behind()) && self.present.contains_key(account)
    }

    /// Enters a membership of a session that has none with that joining yet.
    pub(super) fn enter(&mut self, key: SessionKey, membership: Membership, begin: StartPosition) {
        let Membership {
            conversation: id,
            joined,
            left,
            head,
            members,
        } = membership;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let there = self.conversations.get(&id);
        let is_over = session.ended.get(id).is_some_and(|ended| ended >= joined)
            || there.is_some_and(|there| there.opened_behind(key, joined));
        if is_over {
            return;
        }
        let heard = self.heard.highest(id);
        let conversation = self.conversations.entry(id).or_insert_with(|| {
            let tenant = session.account.tenant.clone();
            self.come.hosts(tenant.clone(), id, head.max(heard));
            self.ids.insert(id);
            self.heard.begins(key, (id, head.max(heard)), self.now);
            let members = Members::at(members, head, head.max(heard));
            self.clock += 1;
            Conversation::at(tenant, head.max(heard), members, self.clock)
        });
        conversation.sequencer.learn(head);
        // Those that a session opens with are no news of its user.
        if session.conversations.insert(id) && session.is_open() {
            self.come.joins(&session.account, id);
        }
        let mut subscription =
            Subscription::new(key, Arc::clone(&session.send_queue), joined, left, begin);
        subscription.set_waiting(session.is_unsure(id, self.epoch) && !begin.by_record);
        let is_new = conversation.enter(subscription);
        let position = conversation.sequencer.position();
        self.prove(
            (id, key, joined),
            is_new.then_some(position),
            begin.acked.unwrap_or(head),
        );
        self.watch_gap(id);
        self.catch_up(id, key, joined);
    }

    /// A membership is known up to a seq: one that is new, where the order stands at `new`, or one that may have ended in what it has not
    /// read yet. What was delivered behind is looked for in the window. Where that does not hold it, the membership carries no signals before it
    /// has read it.
    fn prove(&mut self, place: (ConversationId, SessionKey, Seq), new: Option<Seq>, acked: Seq) {
        let (id, key, joined) = place;
        let (Some(session), Some(conversation)) =
            (self.sessions.get(&key), self.conversations.get_mut(&id))
        else {
            return;
        };
        let head = conversation.head();
        let Some(subscription) = conversation.entry(key, joined) else {
            return;
        };
        let Some(until) = new.or_else(|| subscription.unacked()) else {
            return;
        };
        if acked < until {
            let Some(since) = self.window.behind(id, acked, head) else {
                subscription.set_unproven(until);
                return;
            };
            let user = &session.account.user;
            let mut since = since.take_while(|event| event.seq <= until);
            let end = since.find(|event| event.seq > joined && event.ends_membership_of(user));
            subscription.ends(end.map(|event| event.seq));
        }
        if new.is_none() {
            subscription.set_unproven(0);
            self.is_proven(key);
        }
    }

    /// A membership carries signals since now: when its user's presence changed, nobody there was told.
    pub(super) fn is_proven(&mut self, key: SessionKey) {
        let session = self.sessions.get(&key);
        if let Some(session) = session.filter(|session| session.is_open()) {
            self.come.counts(&session.account);
        }
    }

    /// Nothing more is unsure: what waits for that may go.
    pub(super) fn release(&mut self, id: ConversationId, key: SessionKey) {
        if let Some(joined) = self
            .conversations
            .get(&id)
            .and_then(|conversation| conversation.first_of(key))
        {
            self.catch_up(id, key, joined);
        }
    }

    /// Ends what was delivered to its end, and lets the session's next membership there begin.
    pub(super) fn end_entries(&mut self, id: ConversationId, ended: &[(SessionKey, Seq)]) {
        for (key, left) in ended {
            if let Some(session) = self.sessions.get_mut(key) {
                session.ended.insert(id, *left);
            }
            let next = self
                .conversations
                .get(&id)
                .and_then(|conversation| conversation.first_of(*key));
            match next {
                Some(joined) => self.catch_up(id, *key, joined),
                None => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.conversations.remove(id);
                    }
                }
            }
        }
    }

    /// A conversation without local members is only remembered by how far it was heard. One whose order has a gap stays until
    /// that is filled: what is held behind it may be the addition of a user who is here.
    pub(super) fn forget_if_empty(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get(&id)
            && conversation.is_empty()
            && !conversation.sequencer.has_gap()
        {
            self.heard
                .note(id, conversation.sequencer.known(), self.now);
            self.conversations.remove(&id);
            self.ids.remove(&id);
        }
    }
}

impl LogEvent {
    /// What the event does to memberships. One of ours that cannot be parsed is a defect, and changes nothing.
    pub(super) fn membership_change(&self) -> Option<MembershipChange> {
        MembershipChange::parse(self.r#type, self.body.json()).unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), seq = self.seq, "a membership event cannot be parsed");
            None
        })
    }

    /// Whether a membership of the user that began before ends with the event.
    pub(super) fn ends_membership_of(&self, user: &UserId) -> bool {
        match self.membership_change() {
            Some(MembershipChange::Left(left)) => left == *user,
            Some(MembershipChange::Ended) => true,
            Some(MembershipChange::Joined(_)) | None => false,
        }
    }
}

impl From<&FeedEvent> for LogEvent {
    fn from(event: &FeedEvent) -> Self {
        Self {
            seq: event.seq,
            r#type: event.r#type,
            target: event.target_seq,
            body: Arc::new(Broadcast::new(&event.json)),
        }
    }
}

impl From<EncodedEvent> for LogEvent {
    fn from(event: EncodedEvent) -> Self {
        Self {
            seq: event.seq,
            r#type: event.r#type,
            target: event.target,
            body: Arc::new(Broadcast::new(event.json.as_str().as_bytes())),
        }
    }
}
