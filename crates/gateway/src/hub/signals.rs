//! Signals to sessions, and what the hub knows for them: who is a member, and of how large a conversation.

use std::ops::Bound;
use std::sync::Arc;

use confab_protocol::chain::chain;
use confab_protocol::frame::{PresenceSignal, ReceiptSignal, ServerFrame, TypingSignal};
use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::limits;
use confab_protocol::query::MembershipsOf;
use confab_protocol::signal::{MemberOf, Presence, PresenceStatus, Signal, SignalKind};
use rustc_hash::{FxHashMap, FxHashSet};

use super::conversation::Conversation;
use super::subscription::Subscription;
use super::{
    Membership, MembershipQuery, NewMembers, Purpose, Session, Shard, Shards, UserMemberships,
    asking,
};
use crate::account::{Account, SessionKey};
use crate::delivery::broadcast::Broadcast;
use crate::delivery::send_queue::SignalKey;

/// Whether a session's user is a member, as far as the hub knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MembershipLookup {
    /// It is, in a conversation of so many.
    Member(u64),
    /// The hub knows of no membership: a worker must be asked.
    Unknown(MembershipQuery),
}

/// A user's membership of a conversation that carries signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalMembership {
    pub(crate) joined: Seq,
    /// Up to where the conversation's log was heard here.
    pub(crate) as_of: Seq,
}

/// Up to where a user is known to be a member: who did not leave by all that was heard here is one up to where the order stands.
pub(crate) const fn known_up_to(as_of: Seq, position: Seq) -> Seq {
    if as_of == Seq::MAX { position } else { as_of }
}

/// Members of a conversation with sessions on this gateway.
#[derive(Debug, Default)]
pub(crate) struct MembersHere {
    pub(crate) accounts: FxHashSet<Arc<Account>>,
    /// Up to where the conversation's log was heard here.
    pub(crate) as_of: Seq,
    /// Whether it is known of all others that they are none, or that the conversation carries no signals.
    pub(crate) is_whole: bool,
}

/// A change of a user's presence on its way to the sessions that share a conversation with it, from shard to shard.
#[derive(Debug)]
pub(crate) struct PresenceChange {
    tenant: TenantId,
    user: UserId,
    key: SignalKey,
    broadcast: Broadcast,
    /// Whether the user is gone: that is told also where conversations have grown too large since they were told that it came.
    is_end: bool,
    /// By shard, the conversations in which it is not told yet.
    rest: Vec<Vec<MemberOf>>,
    told: FxHashSet<SessionKey>,
}

impl PresenceChange {
    /// Begins with a change; none where its frame cannot be encoded.
    pub(crate) fn new(presence: Presence, shards: Shards) -> Option<Self> {
        let rest = shards.split(presence.member_of(), |one| one.conversation);
        let Presence {
            tenant,
            user,
            status,
            ..
        } = presence;
        let frame = ServerFrame::Presence(PresenceSignal {
            user_id: user.clone(),
            status,
        });
        let json = encode(&frame)?;
        Some(Self {
            key: SignalKey::Presence(user.clone()),
            broadcast: Broadcast::new(json.as_bytes()),
            is_end: status == PresenceStatus::Offline,
            tenant,
            user,
            rest,
            told: FxHashSet::default(),
        })
    }

    /// What an older change was not told in yet, this one is told in as well.
    pub(crate) fn take_over(&mut self, older: Self) {
        for (rest, older) in self.rest.iter_mut().zip(older.rest) {
            let ids: FxHashSet<_> = rest.iter().map(|one| one.conversation).collect();
            rest.extend(
                older
                    .into_iter()
                    .filter(|one| !ids.contains(&one.conversation)),
            );
        }
    }

    /// The conversations of a shard in which it is not told yet.
    #[cfg(test)]
    pub(crate) fn rest_in(&self, shard: usize) -> impl Iterator<Item = ConversationId> {
        self.rest[shard].iter().map(|one| one.conversation)
    }

    /// Whose presence it is.
    pub(crate) fn account(&self) -> Account {
        Account {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
        }
    }

    /// Whether it was told in every conversation of a shard.
    pub(crate) fn is_told_in(&self, shard: usize) -> bool {
        self.rest.get(shard).is_none_or(Vec::is_empty)
    }

    /// The next shard in which it is to be told.
    pub(crate) fn next_shard(&self) -> Option<usize> {
        self.rest.iter().position(|rest| !rest.is_empty())
    }
}

impl Conversation {
    /// Whether it has so few members that it carries signals.
    pub(super) fn carries_signals(&self) -> bool {
        self.members.count() <= limits::SIGNAL_MEMBERS
    }

    /// The sessions of present members, but for some.
    fn listeners(&self, but: &[SessionKey]) -> impl Iterator<Item = &Subscription> {
        let present = self
            .subscriptions()
            .filter(|subscription| subscription.listens());
        present.filter(move |subscription| !but.contains(&subscription.session()))
    }
}

impl Shard {
    /// A signal about a conversation was heard: its present members' sessions are told, and those of its own user where
    /// it is a receipt, which they want to know of each other, however large the conversation is.
    pub(crate) fn signal(&mut self, signal: &Signal) {
        let is_receipt = matches!(signal.kind, SignalKind::Receipt(_));
        let Some(conversation) = self.hosted(signal.conversation, &signal.tenant) else {
            return;
        };
        let carries = conversation.carries_signals();
        if !(carries || is_receipt) || !self.said.hear(signal, self.now) {
            return;
        }
        let Some(conversation) = self.hosted(signal.conversation, &signal.tenant) else {
            return;
        };
        let (conversation_id, user_id) = (signal.conversation, signal.user.clone());
        let user = user_id.clone();
        let (frame, key, but) = match signal.kind {
            SignalKind::Typing(on) => (
                ServerFrame::Typing(TypingSignal {
                    conversation_id,
                    user_id,
                    on,
                }),
                SignalKey::Typing(conversation_id, user),
                self.sessions_of(&signal.tenant, &signal.user),
            ),
            SignalKind::Receipt(up_to_seq) => (
                ServerFrame::Receipt(ReceiptSignal {
                    conversation_id,
                    user_id,
                    up_to_seq,
                }),
                SignalKey::Receipt(conversation_id, user),
                [].as_slice(),
            ),
        };
        let Some(json) = encode(&frame) else { return };
        let broadcast = Broadcast::new(json.as_bytes());
        if carries {
            // A session that was a member before may still have an ended subscription beside the present one.
            for subscription in conversation.listeners(but) {
                subscription.send_queue().push_signal(&key, &broadcast);
            }
            return;
        }
        for session in self.sessions_of(&signal.tenant, &signal.user) {
            if let Some(subscription) = conversation.listener(*session) {
                subscription.send_queue().push_signal(&key, &broadcast);
            }
        }
    }

    /// Tells a change of presence in some more of a shard's conversations: to about so many sessions, each of which is told once.
    pub(crate) fn tell(&self, telling: &mut PresenceChange, shard: usize, room: usize) {
        let PresenceChange {
            tenant,
            user,
            key,
            broadcast,
            is_end,
            rest,
            told,
        } = telling;
        let Some(rest) = rest.get_mut(shard) else {
            return;
        };
        let own = self.sessions_of(tenant, user);
        let mut looked_at = 0;
        while looked_at < room
            && let Some(one) = rest.pop()
        {
            looked_at += 1;
            let Some(conversation) = self.hosted(one.conversation, tenant) else {
                continue;
            };
            if !*is_end && !conversation.carries_signals() {
                continue;
            }
            let as_of = known_up_to(one.as_of, conversation.sequencer.position());
            for subscription in conversation.listeners(own) {
                looked_at += 1;
                if subscription.joined() <= as_of && told.insert(subscription.session()) {
                    subscription.send_queue().push_signal(key, broadcast);
                }
            }
        }
    }

    /// The sessions of a user.
    fn sessions_of(&self, tenant: &TenantId, user: &UserId) -> &[SessionKey] {
        let account = Account {
            tenant: tenant.clone(),
            user: user.clone(),
        };
        self.present.get(&account).map_or(&[], Vec::as_slice)
    }

    fn hosted(&self, id: ConversationId, tenant: &TenantId) -> Option<&Conversation> {
        let conversation = self.conversations.get(&id)?;
        (conversation.tenant == *tenant).then_some(conversation)
    }

    /// Whether the conversation carries signals; none where it has no members here.
    pub(crate) fn carries(&self, id: ConversationId) -> Option<bool> {
        let conversation = self.conversations.get(&id);
        conversation.map(Conversation::carries_signals)
    }

    /// The sessions of a user, of each of which [`Self::carrying_in`] is to be asked.
    pub(crate) fn all_of(&self, account: &Account) -> Vec<SessionKey> {
        self.present.get(account).cloned().unwrap_or_default()
    }

    /// Adds those of a session's conversations that carry signals; says whether it is known of all others that they do not.
    pub(crate) fn carrying_in(
        &self,
        key: SessionKey,
        carrying: &mut FxHashMap<ConversationId, SignalMembership>,
    ) -> bool {
        let Some(session) = self.sessions.get(&key) else {
            return true;
        };
        let mut is_whole = true;
        // Most sessions of a user have the same ones: each is looked up once.
        let others = session.conversations.iter();
        let others: Vec<_> = others.filter(|id| !carrying.contains_key(id)).collect();
        for id in others {
            let Some(conversation) = self.conversations.get(&id) else {
                continue;
            };
            is_whole &= conversation.members.is_known() && !conversation.is_unproven(key);
            if let Some(subscription) = conversation.listener(key)
                && conversation.carries_signals()
            {
                let (joined, as_of) = (subscription.joined(), conversation.sequencer.position());
                carrying.insert(id, SignalMembership { joined, as_of });
            }
        }
        is_whole
    }

    /// About how much [`Self::members_here`] looks at: one more than the conversation has memberships here.
    pub(crate) fn cost_of_members(&self, id: ConversationId) -> usize {
        let conversation = self.conversations.get(&id);
        let carries = conversation.filter(|there| there.carries_signals());
        1 + carries.map_or(0, Conversation::entry_count)
    }

    /// The present members of a conversation that have sessions here, where it carries signals.
    pub(crate) fn members_here(&self, id: ConversationId) -> MembersHere {
        let mut here = MembersHere {
            is_whole: true,
            ..MembersHere::default()
        };
        let Some(conversation) = self.conversations.get(&id) else {
            return here;
        };
        here.as_of = conversation.sequencer.position();
        here.is_whole = conversation.members.is_known();
        if !conversation.carries_signals() {
            return here;
        }
        for subscription in conversation.subscriptions() {
            here.is_whole &= subscription.unacked().is_none();
            if subscription.listens() {
                here.accounts
                    .extend(self.account(subscription.session()).cloned());
            }
        }
        here
    }

    /// Whose session it is.
    pub(crate) fn account(&self, key: SessionKey) -> Option<&Arc<Account>> {
        self.sessions.get(&key).map(|session| &session.account)
    }

    /// Whether anyone came since [`Self::take_come`] was last asked.
    pub(crate) fn has_come(&self) -> bool {
        !self.come.is_empty()
    }

    /// Who came since this was last asked.
    pub(crate) fn take_come(&mut self) -> NewMembers {
        std::mem::take(&mut self.come)
    }

    /// Looks at so many of the conversations with members here that are in order behind `after`: gives those that carry signals, and the
    /// last one looked at where there may be more.
    pub(crate) fn hosted_behind(
        &self,
        after: Option<ConversationId>,
        count: usize,
    ) -> (Vec<(TenantId, ConversationId)>, Option<ConversationId>) {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.ids.range((behind, Bound::Unbounded)).take(count);
        let ids: Vec<_> = ids.copied().collect();
        let last = ids.last().copied().filter(|_| ids.len() == count);
        let carrying = ids.into_iter().filter_map(|id| {
            let conversation = self.conversations.get(&id)?;
            let tenant = conversation
                .carries_signals()
                .then(|| conversation.tenant.clone());
            Some((tenant?, id))
        });
        (carrying.collect(), last)
    }

    /// Whether a session's user is a member of a conversation.
    pub(crate) fn standing(&self, key: SessionKey, id: ConversationId) -> Option<MembershipLookup> {
        let session = self.sessions.get(&key)?;
        let conversation = self.conversations.get(&id);
        let conversation = conversation.filter(|_| session.conversations.contains(id));
        if let Some(conversation) = conversation {
            // Of a large conversation it does not matter who listens, and there may be many to look through.
            let is_member = !conversation.carries_signals() || conversation.listener(key).is_some();
            if is_member {
                return Some(MembershipLookup::Member(conversation.members.count()));
            }
        }
        // Of memberships that began and ended meanwhile, none must be passed over by the present one.
        let keys = self.present.get(&session.account).into_iter().flatten();
        let ended = keys.filter_map(|key| self.sessions.get(key));
        let ended = ended.map(|session| session.ended.get(id).unwrap_or_default());
        let of = MembershipsOf {
            only: Some(vec![id]),
            held: vec![(id, ended.min().unwrap_or_default())],
            ..asking::memberships_of(&session.account)
        };
        Some(MembershipLookup::Unknown(MembershipQuery {
            of: vec![of],
            purpose: Purpose::MembershipLookup,
            epoch: self.epoch,
            asked: self.clock,
        }))
    }

    /// A worker was asked for a standing. The present membership is entered, unless there is more to it, which the feed
    /// tells in its order.
    pub(super) fn learn_standing(
        &mut self,
        of: &MembershipsOf,
        answer: &UserMemberships,
        asked: u64,
    ) {
        if let [membership @ Membership { left: None, .. }] = *answer.memberships {
            let was_open = |_: SessionKey, session: &Session| session.opened <= asked;
            self.learn(&asking::account_of(of), &[membership], was_open);
        }
    }

    /// A worker's snapshot says how many members a conversation has. Where that was not known before, presence was told to nobody, and
    /// begins with it.
    pub(super) fn count(&mut self, membership: &Membership) {
        let id = membership.conversation;
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let was_known = conversation.members.is_known();
        let position = conversation.sequencer.position();
        let Membership { members, head, .. } = *membership;
        conversation.members.learn(members, head, position);
        if !conversation.members.is_known() && head < position {
            let held = self.window.behind(id, head, conversation.head());
            let since = held.into_iter().flatten();
            let since = since.take_while(|event| event.seq <= position);
            let changes = since.map(|event| (event.seq, event.membership_change()));
            conversation.members.begin(members, head, changes);
        }
        if was_known || !conversation.carries_signals() {
            return;
        }
        self.come.hosts(conversation.tenant.clone(), id, position);
        for subscription in conversation.listeners(&[]) {
            let session = self.sessions.get(&subscription.session());
            if let Some(session) = session.filter(|session| session.is_open()) {
                self.come.counts(&session.account);
            }
        }
    }
}

fn encode(frame: &ServerFrame) -> Option<String> {
    match frame.encode() {
        Ok(json) => Some(json),
        Err(error) => {
            tracing::error!(error = %chain(&error), "a signal cannot be encoded");
            None
        }
    }
}
