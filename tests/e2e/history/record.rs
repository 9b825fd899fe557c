//! What is written down while a test runs.

use std::collections::BTreeMap;

use confab_protocol::error::Code;
use confab_protocol::event::{Event, EventType};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};

/// A seq by conversation.
pub(crate) type Positions = BTreeMap<ConversationId, Seq>;

/// What somebody asked a conversation for. It is also what a row of the log says was done, so that the two can be counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
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
pub(crate) enum Outcome {
    /// It was answered with success, some with the seq of its event.
    Done(Option<Seq>),
    /// It was refused, so that nothing may be stored.
    Refused(Code),
    /// No answer came, or one that leaves it open.
    Unknown,
}

/// A command, once for each that was given. A send that was tried again with its client id is one.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) conversation: ConversationId,
    pub(crate) actor: UserId,
    pub(crate) deed: Deed,
    pub(crate) outcome: Outcome,
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
    pub(crate) commands: Vec<Command>,
    pub(crate) marks: Vec<ReadMark>,
}

/// What one client heard, from its first welcome on.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) lives: Vec<Life>,
    /// What must not have happened to it.
    pub(crate) trouble: Option<String>,
}

impl Account {
    pub(crate) const fn new(user: UserId) -> Self {
        Self {
            user,
            lives: Vec::new(),
            trouble: None,
        }
    }
}

/// One connection, from its welcome to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// Whether it went on with the session before it.
    pub(crate) resumed: bool,
    /// Why it did not.
    pub(crate) reason: Option<String>,
    /// What hello said that the client holds; none of a client that never says so.
    pub(crate) said: Option<Positions>,
    /// The heads at its welcome, where they were asked for.
    pub(crate) heads: Option<Positions>,
    /// In the order heard, before anything is suppressed.
    pub(crate) heard: Vec<Heard>,
    /// How it ended.
    pub(crate) ended: Option<String>,
}

/// Something that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Event(Told),
    /// A user has read.
    Receipt {
        conversation: ConversationId,
        user: UserId,
        up_to: Seq,
    },
    /// Whether a user is there.
    Presence(UserId),
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
        events: Vec<Told>,
    },
}

/// An event as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) conversation: ConversationId,
    pub(crate) seq: Seq,
    pub(crate) id: EventId,
    pub(crate) r#type: EventType,
    pub(crate) actor: UserId,
}

impl From<&Event> for Told {
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
