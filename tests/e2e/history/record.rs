//! The records that a running test collects.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use confab_protocol::error::Code;
use confab_protocol::event::{Event, EventType};
use confab_protocol::frame::{PresenceSignal, PresenceSnapshot};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::signal::PresenceStatus;
use time::OffsetDateTime;

/// A seq by conversation.
pub(crate) type Positions = BTreeMap<ConversationId, Seq>;

/// A moment, in milliseconds of Unix time. All that a test runs is on one host, so that its clocks are one.
pub(crate) type Millis = i64;

/// The moment that is.
pub(super) fn now() -> Millis {
    let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    millis.try_into().unwrap()
}

/// What somebody asked a conversation for. It is also what a row of the log says was done, so that the two can be counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogAction {
    Create,
    Send(ClientId),
    Edit(EventId),
    Delete(EventId),
    Add(Vec<UserId>),
    Remove(UserId),
    Role(UserId, String),
    Name(String),
    End,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// It was answered with success, some with the seq of its event.
    Done(Option<Seq>),
    /// It was refused, so that nothing may be stored.
    Refused(Code),
    /// No answer came, or one that leaves it open.
    Unknown,
}

/// A command, once for each that was given. A send that was tried again with its client id is one.
#[derive(Debug, Clone)]
pub(crate) struct IssuedCommand {
    pub(crate) conversation: ConversationId,
    pub(crate) actor: UserId,
    pub(crate) action: LogAction,
    pub(crate) outcome: CommandOutcome,
    /// From when it was asked for until it was answered.
    pub(crate) time: RangeInclusive<Millis>,
}

/// Where a user was told that its read mark stands: by the answer to a mark, or by a read.
#[derive(Debug, Clone)]
pub(crate) struct ReadMark {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) up_to: Seq,
}

/// What one user did, in its order.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    pub(crate) commands: Vec<IssuedCommand>,
    pub(crate) marks: Vec<ReadMark>,
}

/// What one client heard, from its first welcome on.
#[derive(Debug, Clone)]
pub(crate) struct ClientAccount {
    pub(crate) user: UserId,
    pub(crate) generations: Vec<Generation>,
    /// What it said of its user's presence, on each of its connections.
    pub(crate) said: Vec<Saying>,
    /// Whether it has left for good.
    pub(crate) has_left: bool,
    /// What must not have happened to it.
    pub(crate) trouble: Option<String>,
}

/// Something said of one's own presence. A client says its last one again on each connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saying {
    pub(crate) status: PresenceStatus,
    pub(crate) at: Millis,
}

impl ClientAccount {
    pub(crate) const fn new(user: UserId) -> Self {
        Self {
            user,
            generations: Vec::new(),
            said: Vec::new(),
            has_left: false,
            trouble: None,
        }
    }
}

/// One connection, from its welcome to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generation {
    /// Whether it went on with the session before it.
    pub(crate) resumed: bool,
    /// Why it did not.
    pub(crate) reason: Option<String>,
    /// What hello said that the client holds; none of a client that never says so.
    pub(crate) said: Option<Positions>,
    /// The heads at its welcome, where they were asked for.
    pub(crate) heads: Option<Positions>,
    /// In the order heard, before anything is suppressed.
    pub(crate) heard: Vec<ReceivedItem>,
    /// The gateway's URL.
    pub(crate) url: String,
    /// When its welcome was heard.
    pub(crate) welcomed_at: Millis,
    /// How it ended.
    pub(crate) ended: Option<String>,
}

/// Something that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceivedItem {
    Event(ReceivedEvent),
    /// A user has read.
    Receipt {
        conversation: ConversationId,
        user: UserId,
        up_to: Seq,
    },
    /// Whether a user is there, now that it changed.
    Presence(Presence),
    /// Who is there, and whether everyone else is not.
    Snapshot {
        users: Vec<Presence>,
        is_complete: bool,
        at: Millis,
    },
    /// Nothing of a range is sent: it is to be read over HTTP.
    Truncated {
        conversation: ConversationId,
        from: Seq,
        head: Seq,
        reset: bool,
    },
    /// Such a range was read up to its head, or can no more be read by one who is no member any more.
    Read {
        conversation: ConversationId,
        head: Seq,
        events: Vec<ReceivedEvent>,
    },
}

/// A user's presence as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) user: UserId,
    pub(crate) status: PresenceStatus,
    pub(crate) at: Millis,
}

impl Presence {
    /// As it is told now.
    pub(super) fn told(signal: &PresenceSignal) -> Self {
        Self {
            user: signal.user_id.clone(),
            status: signal.status,
            at: now(),
        }
    }
}

impl ReceivedItem {
    /// A snapshot of presence that comes now.
    pub(super) fn snapshot(snapshot: &PresenceSnapshot) -> Self {
        Self::Snapshot {
            users: snapshot.users.iter().map(Presence::told).collect(),
            is_complete: snapshot.complete,
            at: now(),
        }
    }
}

/// An event as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceivedEvent {
    pub(crate) conversation: ConversationId,
    pub(crate) seq: Seq,
    pub(crate) id: EventId,
    pub(crate) r#type: EventType,
    pub(crate) actor: UserId,
}

impl From<&Event> for ReceivedEvent {
    fn from(event: &Event) -> Self {
        Self {
            conversation: event.conversation_id,
            seq: event.seq,
            id: event.id,
            r#type: event.r#type,
            actor: event.actor.clone(),
        }
    }
}
