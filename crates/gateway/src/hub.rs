//! Which session receives which events: sessions, their memberships, and a cursor for each. No IO, no tasks; what must be done elsewhere is an
//! [`Effect`].
//!
//! Conversations are spread over shards. Each shard receives the feed for itself, and they share nothing. The steps of a session that
//! concern several shards are the coordinator's: a session opens when every shard has entered its part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::feed::FeedEvent;
use confab_bus::records::Position;
use confab_protocol::event::MembershipChange;
use confab_protocol::frame::Truncated;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Membership, MembershipsOf, UserMemberships};
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;

use crate::account::{Account, SessionKey};
use crate::delivery::send_queue::SendQueue;
use crate::delivery::sequencer::{LogEvent, SequenceVerdict};
use crate::delivery::window::{Bounds, Window};
use crate::metrics::Replays;

pub(crate) mod actor;
pub(crate) mod announced;
mod asking;
mod come;
mod conversation;
mod coordinator;
mod delivery;
mod effect;
mod ended;
mod entering;
pub(crate) mod feed;
pub(crate) mod lag;
mod lingering;
mod members;
mod positions;
mod pushing;
mod reading;
mod said;
mod session;
mod settings;
mod shards;
mod signals;
mod steps;
mod subscription;
mod subscriptions;
mod truncating;
mod unheard;
#[cfg(any(test, feature = "measured"))]
mod whole;

pub(crate) use settings::HubSettings;

pub(crate) use come::NewMembers;
use conversation::Conversation;
pub(crate) use coordinator::Coordinator;
pub(crate) use effect::{Effect, MembershipQuery, Purpose, Read, Reader, Retry, Ticket};
pub(crate) use positions::gathered;
use said::SignalMemory;
use session::{Conversations, Session};
pub(crate) use shards::Shards;
pub(crate) use signals::{MembershipLookup, PresenceChange, SignalMembership, known_up_to};
pub(crate) use steps::{Step, Stepped};
use unheard::Unheard;
#[cfg(any(test, feature = "measured"))]
pub(crate) use whole::Hub;

/// From where a session begins to hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// Whether a session goes on; else what is not in `seen` counts from its head.
    pub(crate) resumed: bool,
    /// What its record says that the client has.
    pub(crate) positions: Vec<Position>,
    /// What the client says that it has.
    pub(crate) seen: BTreeMap<ConversationId, Seq>,
    /// What it says of its user; else it is online.
    pub(crate) presence: Option<PresenceStatus>,
}

/// A session that opens.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) key: SessionKey,
    pub(crate) account: Account,
    /// Where its events go.
    pub(crate) send_queue: Arc<SendQueue>,
    pub(crate) start: Start,
}

/// What is known of a session when it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The last seq of each of its conversations.
    pub(crate) heads: Vec<(ConversationId, Seq)>,
    /// What is not replayed.
    pub(crate) truncated: Vec<Truncated>,
    /// How many events are replayed.
    pub(crate) replayed: u64,
}

/// How long an event that came too early waits for the one before it to come by itself.
const GAP_PATIENCE: Duration = Duration::from_millis(50);
/// The epoch before the feed began: nothing was missed yet.
pub(crate) const FIRST_EPOCH: u64 = 1;
/// Conversations from which sessions that are gone are removed in one go.
const LEAVE_AT_ONCE: usize = 1024;
/// How soon what failed, or brought nothing new, is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How long a session that goes on waits for a worker's word before it opens by its record alone.
const WITHOUT_WORKERS: Duration = Duration::from_secs(2);

/// One shard of the hub: some of the conversations, all sessions, and what each is to hear of those.
#[derive(Debug)]
pub(crate) struct Shard {
    conversations: FxHashMap<ConversationId, Conversation>,
    /// Their ids in order, so that they can be looked at piece by piece.
    ids: BTreeSet<ConversationId>,
    /// Those whose events are on their way through their subscriptions.
    pushing: VecDeque<ConversationId>,
    sessions: FxHashMap<SessionKey, Box<Session>>,
    present: FxHashMap<Arc<Account>, Vec<SessionKey>>,
    heard: Unheard,
    window: Window,
    replays: Replays,
    /// Grows with every break of the feed.
    epoch: u64,
    /// Grows with every conversation that begins here, and with every session that opens by its record.
    clock: u64,
    /// Grows with every addition that is confirmed.
    confirmations: u64,
    /// Sessions that are gone, with the conversations from which they are still to be removed.
    leaving: VecDeque<(SessionKey, Conversations)>,
    /// Conversations with their first members here, and users with new ones, until someone asks.
    come: NewMembers,
    /// What signals said lately.
    said: SignalMemory,
    effects: Vec<Effect>,
    now: Instant,
    /// When the event was read that is handed on now.
    read: Instant,
}

/// How much is replayed of what a session missed; the rest is named in `truncated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayLimits {
    pub(crate) events: u64,
    pub(crate) bytes: usize,
}

impl Shard {
    /// Without a conversation; its window is bounded so.
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            conversations: FxHashMap::default(),
            ids: BTreeSet::new(),
            pushing: VecDeque::new(),
            sessions: FxHashMap::default(),
            present: FxHashMap::default(),
            heard: Unheard::new(now),
            window: Window::new(bounds, now),
            replays: Replays::default(),
            epoch: FIRST_EPOCH,
            clock: 0,
            confirmations: 0,
            leaving: VecDeque::new(),
            come: NewMembers::default(),
            said: SignalMemory::default(),
            effects: Vec::new(),
            now,
            read: now,
        }
    }

    /// It is `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        (self.now, self.read) = (now, now);
        self.window.expire(now);
    }

    /// The replay window.
    pub(crate) const fn window(&self) -> &Window {
        &self.window
    }

    /// What was replayed since this was last asked.
    pub(crate) fn take_replays(&mut self) -> Replays {
        std::mem::take(&mut self.replays)
    }

    /// An event of the stream's past, for the window alone.
    pub(crate) fn fill(&mut self, event: &FeedEvent) {
        self.window
            .fill(event.conversation, &LogEvent::from(event), self.now);
    }

    /// Nothing more comes of the stream's past.
    pub(crate) const fn filled(&mut self) {
        self.window.filled();
    }

    /// What must be done since this was last asked.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        self.ask_unsure();
        std::mem::take(&mut self.effects)
    }

    /// How many conversations have local members.
    pub(crate) fn conversation_count(&self) -> usize {
        self.conversations.len()
    }

    /// An event that was read then came through the feed. Says what became of it.
    pub(crate) fn heard_since(&mut self, event: &FeedEvent, read: Instant) -> &'static str {
        self.read = read;
        let verdict = self.heard(event);
        self.read = self.now;
        verdict
    }

    /// An event came through the feed. Says what became of it.
    pub(crate) fn heard(&mut self, event: &FeedEvent) -> &'static str {
        let log_event = LogEvent::from(event);
        self.window.note(event.conversation, &log_event, self.now);
        let Some(conversation) = self.conversations.get_mut(&event.conversation) else {
            self.heard.note(event.conversation, event.seq, self.now);
            self.heard_of_addition(event);
            return "unheard";
        };
        match conversation.sequencer.offer(log_event) {
            SequenceVerdict::Deliver(log_event) => {
                self.deliver_all(event.conversation, Some(log_event));
                "delivered"
            }
            SequenceVerdict::Duplicate => {
                // The sequencer may have started after an addition that another session still lacks.
                self.heard_of_addition(event);
                "duplicate"
            }
            SequenceVerdict::Gap => {
                self.watch_gap(event.conversation);
                "held"
            }
        }
    }

    /// An event that the order of local members does not deliver: it matters only when it adds a user who is here.
    fn heard_of_addition(&mut self, event: &FeedEvent) {
        if !event.r#type.changes_membership() {
            return;
        }
        let Ok(Some(MembershipChange::Joined(users))) =
            MembershipChange::parse(event.r#type, &event.json)
        else {
            return;
        };
        let mut of = Vec::new();
        for user in users {
            let account = Account {
                tenant: event.tenant.clone(),
                user,
            };
            if self.note_addition(&account, event.conversation, event.seq) {
                of.push(asking::confirmation(
                    &account,
                    event.conversation,
                    event.seq,
                ));
            }
        }
        self.confirm(of);
    }

    /// Sessions of the user that open now take note of the addition; says whether there are others that are open.
    fn note_addition(&mut self, account: &Account, conversation: ConversationId, seq: Seq) -> bool {
        let mut any_open = false;
        for key in self.present.get(account).into_iter().flatten() {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            if let Some(noted) = &mut session.noted {
                let noted = noted.entry(conversation).or_default();
                *noted = seq.max(*noted);
            } else {
                any_open |= !self.knows(*key, conversation, seq);
            }
        }
        any_open
    }

    /// Whether the session has the membership that began with `joined`, or a later one, or had it.
    fn knows(&self, key: SessionKey, conversation: ConversationId, joined: Seq) -> bool {
        let ended = self
            .sessions
            .get(&key)
            .and_then(|session| session.ended.get(conversation));
        let entered = self
            .conversations
            .get(&conversation)
            .and_then(|c| c.last_of(key));
        ended.is_some_and(|ended| ended >= joined)
            || entered.is_some_and(|entered| entered >= joined)
    }

    /// A session is gone; gives what its client has acknowledged.
    pub(crate) fn close(&mut self, key: SessionKey) -> Vec<Position> {
        let positions = self.positions(key);
        let Some(session) = self.sessions.remove(&key) else {
            return Vec::new();
        };
        if let Some(keys) = self.present.get_mut(&session.account) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.present.remove(&session.account);
            }
        }
        self.leaving.push_back((key, session.conversations));
        self.leave_on();
        positions
    }

    /// Whether sessions that are gone are still to be removed from conversations: then [`Self::leave_on`] is to be called.
    pub(crate) fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Removes them from some more.
    pub(crate) fn leave_on(&mut self) {
        for _ in 0..LEAVE_AT_ONCE {
            let Some((key, conversations)) = self.leaving.front_mut() else {
                return;
            };
            let (key, next) = (*key, conversations.pop());
            let Some(id) = next else {
                self.leaving.pop_front();
                continue;
            };
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.remove_session(key);
            }
            self.forget_if_empty(id);
        }
    }
}

#[cfg(test)]
mod tests;
