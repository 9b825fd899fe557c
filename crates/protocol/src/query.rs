//! What gateways ask of workers that only reads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::Caller;
use crate::error::Failure;
use crate::event::EventType;
use crate::ids::{ConversationId, EventId, Seq, TenantId, UserId};
use crate::json::JsonText;
use crate::resource::{ConversationType, Role};
use crate::revocation::{Lifetimes, Revocation};
use crate::timestamp::Timestamp;

/// The version of queries and their answers; a worker refuses another.
pub const QUERY_VERSION: u8 = 1;

/// A query with who asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryRequest {
    /// [`QUERY_VERSION`].
    pub version: u8,
    /// How many milliseconds are left to answer, from the moment of sending.
    pub budget_ms: u32,
    /// The request's id, for logs.
    pub request_id: String,
    /// The W3C trace context's `traceparent`, where the caller gave one.
    pub traceparent: Option<String>,
    /// What is asked.
    pub query: Query,
}

/// A request to read. Membership is checked in the snapshot that reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One conversation with its first participants: `{conversation, participants, participantsNextCursor}`.
    GetConversation {
        /// Who asks.
        caller: Caller,
        /// Which.
        conversation: ConversationId,
    },
    /// The caller's conversations: `{conversations, nextCursor}`.
    ListConversations(ListConversations),
    /// A conversation's participants: `{participants, nextCursor}`.
    ListParticipants(ListParticipants),
    /// One message: `{message}`'s inside.
    GetMessage {
        /// Who asks.
        caller: Caller,
        /// Which.
        message: EventId,
    },
    /// Which of these users share a conversation with the caller.
    Sharing {
        /// Who asks.
        caller: Caller,
        /// Whom it asks about.
        users: Vec<UserId>,
    },
    /// A conversation's messages: `{messages, nextCursor}`.
    History(History),
    /// A conversation's log as it is: `{events, headSeq}`.
    Log(Log),
    /// Revocations above a revision, in the order of their revisions.
    Revocations {
        /// The last revision that the gateway has.
        after: u64,
        /// For how long the gateway needs them; none from one of before.
        #[serde(default)]
        lifetimes: Option<Lifetimes>,
    },
    /// A gateway's own: events of a log, for its sequencer and its sessions that catch up.
    ReadEvents(ReadEvents),
    /// A gateway's own: events of several logs at once, for a session that catches up.
    ReadRanges(ReadRanges),
    /// A gateway's own: which memberships its users have.
    Memberships(Vec<MembershipsOf>),
}

impl Query {
    /// All names that [`Self::name`] gives.
    pub const NAMES: [&'static str; 11] = [
        "get_conversation",
        "list_conversations",
        "list_participants",
        "get_message",
        "sharing",
        "history",
        "log",
        "revocations",
        "read_events",
        "read_ranges",
        "memberships",
    ];

    /// The query's name in metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetConversation { .. } => "get_conversation",
            Self::ListConversations(_) => "list_conversations",
            Self::ListParticipants(_) => "list_participants",
            Self::GetMessage { .. } => "get_message",
            Self::Sharing { .. } => "sharing",
            Self::History(_) => "history",
            Self::Log(_) => "log",
            Self::Revocations { .. } => "revocations",
            Self::ReadEvents(_) => "read_events",
            Self::ReadRanges(_) => "read_ranges",
            Self::Memberships(_) => "memberships",
        }
    }

    /// With which other queries it shares its bounds.
    #[must_use]
    pub const fn kind(&self) -> QueryKind {
        match self {
            Self::GetConversation { .. }
            | Self::ListConversations(_)
            | Self::ListParticipants(_)
            | Self::GetMessage { .. }
            | Self::Sharing { .. }
            | Self::History(_)
            | Self::Log(_) => QueryKind::Page,
            Self::Revocations { .. }
            | Self::ReadEvents(_)
            | Self::ReadRanges(_)
            | Self::Memberships(_) => QueryKind::Session,
        }
    }

    /// Whose share it counts in; none where it is for all tenants. A question for users of several tenants counts for the first one's, and
    /// for no user where it is for several.
    #[must_use]
    pub fn share(&self) -> Option<QueryShare> {
        let of = |caller: &Caller| QueryShare {
            tenant: caller.tenant.clone(),
            user: Some(caller.user.clone()),
        };
        let of_tenant = |tenant: &TenantId| QueryShare {
            tenant: tenant.clone(),
            user: None,
        };
        match self {
            Self::GetConversation { caller, .. }
            | Self::GetMessage { caller, .. }
            | Self::Sharing { caller, .. } => Some(of(caller)),
            Self::ListConversations(list) => Some(of(&list.caller)),
            Self::ListParticipants(list) => Some(of(&list.caller)),
            Self::History(history) => Some(of(&history.caller)),
            Self::Log(log) => Some(of(&log.caller)),
            Self::ReadEvents(read) => Some(of_tenant(&read.tenant)),
            Self::ReadRanges(read) => Some(of_tenant(&read.tenant)),
            Self::Memberships(of) => of.first().map(|first| QueryShare {
                tenant: first.tenant.clone(),
                user: of
                    .iter()
                    .all(|one| one.user == first.user)
                    .then(|| first.user.clone()),
            }),
            Self::Revocations { .. } => None,
        }
    }
}

/// Queries that share bounds, apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryKind {
    /// What clients ask for over HTTP.
    Page,
    /// What gateways ask for to open sessions and to keep them complete.
    Session,
}

impl QueryKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Page, Self::Session];

    /// The kind's name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Session => "session",
        }
    }
}

/// Whose share of the slots a query counts in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryShare {
    /// The product.
    pub tenant: TenantId,
    /// The user, where the query is for one.
    pub user: Option<UserId>,
}

/// How a list of conversations is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListOrder {
    /// The last event first. One that moves may be missed, none comes twice.
    #[default]
    Recent,
    /// The newest first, exact under changes.
    Created,
}

/// The caller's conversations. By creation and with a type a page looks at 1,000 of them at most: it may have fewer than asked for, or
/// none, and a cursor to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConversations {
    /// Who asks.
    pub caller: Caller,
    /// At most so many.
    pub limit: u32,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only of this type.
    pub r#type: Option<ConversationType>,
    /// In which order.
    pub order: ListOrder,
}

/// A conversation's participants, by joining. With a role a page looks at 2,000 memberships at most: it may have fewer than asked for, or
/// none, and a cursor to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListParticipants {
    /// Who asks.
    pub caller: Caller,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// At most so many.
    pub limit: u32,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Whether memberships that ended are listed as well.
    pub include_left: bool,
    /// Only of this role.
    pub role: Option<Role>,
}

/// A conversation's log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Who asks.
    pub caller: Caller,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Only above this seq.
    pub after: Seq,
    /// At most so many.
    pub limit: u32,
}

/// A conversation's messages, newest first. A page looks at 1,000 events at most: it may have fewer than asked for, or none, and a cursor
/// to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Who asks.
    pub caller: Caller,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// At most so many.
    pub limit: u32,
    /// Only below this seq.
    pub before: Option<Seq>,
    /// Only above this seq.
    pub after: Option<Seq>,
    /// The `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Only of this sender.
    pub sender: Option<UserId>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only stored at or after this time.
    pub from: Option<Timestamp>,
    /// Only stored before this time.
    pub to: Option<Timestamp>,
}

/// Events of a log. The gateway delivers of them only what its users' memberships cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadEvents {
    /// The product.
    pub tenant: TenantId,
    /// Whose log.
    pub conversation: ConversationId,
    /// Only above this seq.
    pub after: Seq,
    /// Up to and with this seq.
    pub up_to: Seq,
}

/// Ranges of several logs. The gateway delivers of them only what its users' memberships cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRanges {
    /// The product.
    pub tenant: TenantId,
    /// Which ranges, each of another log.
    pub ranges: Vec<LogRange>,
}

/// A range of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// Whose log.
    pub conversation: ConversationId,
    /// Only above this seq.
    pub after: Seq,
    /// Up to and with this seq.
    pub up_to: Seq,
}

/// Whose memberships a gateway asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipsOf {
    /// The product.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// Only these conversations; all when absent.
    pub only: Option<Vec<ConversationId>>,
    /// What the gateway holds for the user: memberships that ended above these positions are told as well.
    pub held: Vec<(ConversationId, Seq)>,
    /// Only conversations above this one: the `next` of the page before.
    pub after: Option<ConversationId>,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// An object ready to be sent as it is: `{conversation, …}`.
    Object(JsonText),
    /// A page: its items, ready to be sent as they are.
    Page {
        /// The items' JSON texts.
        items: Vec<JsonText>,
        /// Where the next page begins; none at the end.
        next_cursor: Option<String>,
    },
    /// A part of a log: fewer events than asked where the answer was full.
    Log {
        /// The events' JSON texts, in order.
        events: Vec<JsonText>,
        /// The conversation's last seq in the same snapshot.
        head: Seq,
    },
    /// Revocations in the order of their revisions.
    Revocations {
        /// Some.
        revocations: Vec<Revocation>,
        /// Whether there are more.
        more: bool,
    },
    /// Events in order, fewer than asked where the answer was full.
    Events {
        /// In order of their seqs.
        events: Vec<EncodedEvent>,
    },
    /// Events in order, one entry a [`LogRange`], in its order: fewer than asked, or none, where the answer was full. The
    /// first range that has any event has one here.
    Ranges(Vec<Vec<EncodedEvent>>),
    /// Memberships, one entry a [`MembershipsOf`], in its order.
    Memberships(Vec<UserMemberships>),
    /// Users, in the order asked.
    Users(Vec<UserId>),
}

/// An event as clients receive it, with what a gateway needs beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedEvent {
    /// Its number.
    pub seq: Seq,
    /// Its id.
    pub id: EventId,
    /// What it says.
    pub r#type: EventType,
    /// The message that an edit or deletion is about.
    #[serde(default)]
    pub target: Option<Seq>,
    /// The event's JSON.
    pub json: JsonText,
}

/// A user's memberships, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMemberships {
    /// In order of conversation, then of joining.
    pub memberships: Vec<Membership>,
    /// Where the next page begins; none when this was the last.
    pub next: Option<ConversationId>,
    /// Memberships that ended within the last day, each with the page of its conversation, the newest 1,000 on the first and the last
    /// page as well: a new session is not owed them however late the feed tells of them, an older one is when it was not told.
    pub ended: Vec<Membership>,
}

/// One membership, with its conversation's head in the same snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Where.
    pub conversation: ConversationId,
    /// The event that names the user.
    pub joined: Seq,
    /// The event that ended it.
    pub left: Option<Seq>,
    /// The conversation's last seq.
    pub head: Seq,
    /// How many members it has in the same snapshot.
    pub members: u64,
}

/// The answer to a [`QueryRequest`].
pub type QueryOutcome = Result<Answer, Failure>;
