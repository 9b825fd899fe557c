//! What gateways ask of workers: commands, which append to a log, and queries, which read.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::event::{EventType, Member};
use crate::ids::{ClientId, ConversationId, EventId, Seq, TenantId, UserId};
use crate::json::JsonText;
use crate::resource::{ConversationType, Participant};
use crate::timestamp::Timestamp;

/// The version of this wire; a worker refuses another.
pub const VERSION: u8 = 1;

/// Who asks, as the verified token says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// The product.
    pub tenant: TenantId,
    /// The user: the only identity a command has.
    pub user: UserId,
    /// Whether the token has `confab:admin`: acts in any conversation of its tenant without being a member.
    pub admin: bool,
}

/// Several commands in one NATS request, each answered on its own, in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Batch {
    /// [`VERSION`].
    pub version: u8,
    /// How many milliseconds are left to answer, from the moment of sending.
    pub budget_ms: u32,
    /// The commands. Those of one conversation are carried out in this order.
    pub requests: Vec<Request>,
}

/// One command with who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The request's id, for logs and answers.
    pub request_id: String,
    /// The W3C trace context's `traceparent`, where the caller gave one.
    pub traceparent: Option<String>,
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub command: Command,
}

/// What appends to a log. Each has a key by which a second execution finds the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begin a conversation.
    CreateConversation(CreateConversation),
    /// Add members.
    AddParticipants(AddParticipants),
    /// Remove a member, or leave.
    RemoveParticipant(RemoveParticipant),
    /// Send a message.
    SendMessage(SendMessage),
}

impl Command {
    /// The conversation whose log is appended to; a creation makes its own.
    #[must_use]
    pub const fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::CreateConversation(_) => None,
            Self::AddParticipants(add) => Some(add.conversation),
            Self::RemoveParticipant(remove) => Some(remove.conversation),
            Self::SendMessage(send) => Some(send.conversation),
        }
    }

    /// The command's name in metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateConversation(_) => "create_conversation",
            Self::AddParticipants(_) => "add_participants",
            Self::RemoveParticipant(_) => "remove_participant",
            Self::SendMessage(_) => "send_message",
        }
    }

    /// About how many bytes it takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        256 + match self {
            Self::CreateConversation(create) => {
                create.metadata.as_str().len() + create.participants.len() * 140
            }
            Self::AddParticipants(add) => add.participants.len() * 160,
            Self::RemoveParticipant(_) => 140,
            Self::SendMessage(send) => send.payload.as_str().len(),
        }
    }
}

/// Begin a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateConversation {
    /// The idempotency key, the caller's or the gateway's: unique by tenant and user for 24 hours.
    pub key: String,
    /// SHA-256 of the request's body: what a repeat is compared with.
    pub request_hash: [u8; 32],
    /// What kind.
    pub r#type: ConversationType,
    /// The users named, each once, in the request's order; the caller among them or not.
    pub participants: Vec<UserId>,
    /// The checked metadata object.
    pub metadata: JsonText,
}

/// Add members to a conversation, all or none, as one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddParticipants {
    /// Where.
    pub conversation: ConversationId,
    /// Whom, each once, and as what.
    pub participants: Vec<Member>,
    /// The command's key.
    pub client_id: ClientId,
}

/// End a membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveParticipant {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// The command's key.
    pub client_id: ClientId,
}

/// Send a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// Where to.
    pub conversation: ConversationId,
    /// The command's key.
    pub client_id: ClientId,
    /// The [`MessageBody`](crate::resource::MessageBody) as JSON, encoded by the gateway, kept as it is.
    pub payload: JsonText,
    /// The message that this one answers, as in the payload.
    pub reply_to: Option<EventId>,
    /// What the sender wants to hear.
    pub answer: SendAnswer,
}

/// What a sender wants to hear of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendAnswer {
    /// Its number and id.
    Ack,
    /// The whole message.
    Message,
}

/// The answers to a [`Batch`], one a command, in its order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Result<Outcome, Failure>>);

/// What a command that was carried out is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The conversation began, now or when the key was first used.
    Created(Created),
    /// The members were added.
    Added {
        /// In the request's order.
        participants: Vec<Participant>,
    },
    /// The membership ended.
    Removed {
        /// The membership as it ended.
        participant: Participant,
        /// When the conversation was deleted because its last member left.
        conversation_deleted_at: Option<Timestamp>,
    },
    /// The message is stored.
    Sent(Sent),
}

/// A conversation began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub conversation: ConversationId,
    /// The first answer's body: `{conversation, participants, participantsNextCursor}`.
    pub body: JsonText,
    /// Whether the key was used before.
    pub replayed: bool,
}

/// A message is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its id.
    pub message_id: EventId,
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub created_at: Timestamp,
    /// Whether it was stored before.
    pub duplicate: bool,
    /// The message, where it was asked for.
    pub message: Option<JsonText>,
}

/// A query with who asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryRequest {
    /// [`VERSION`].
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

/// What reads. Membership is checked in the snapshot that reads.
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
    /// A conversation's messages: `{messages, nextCursor}`.
    History(History),
    /// A gateway's own: events of a log, for its sequencer and its sessions that catch up.
    ReadEvents(ReadEvents),
    /// A gateway's own: which memberships its users have.
    Memberships(Vec<MembershipsOf>),
}

impl Query {
    /// The query's name in metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetConversation { .. } => "get_conversation",
            Self::ListConversations(_) => "list_conversations",
            Self::History(_) => "history",
            Self::ReadEvents(_) => "read_events",
            Self::Memberships(_) => "memberships",
        }
    }
}

/// How a list of conversations is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListOrder {
    /// The last event first. One that moves may be missed, none comes twice.
    #[default]
    Recent,
    /// The newest first, exact under changes.
    Created,
}

/// The caller's conversations.
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

/// A conversation's messages, newest first.
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

/// What a query is answered with.
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
    /// Events in order, fewer than asked where the answer was full.
    Events {
        /// In order of their seqs.
        events: Vec<EncodedEvent>,
    },
    /// Memberships, one entry a [`MembershipsOf`], in its order.
    Memberships(Vec<UserMemberships>),
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
    /// On the first page of a question for all: memberships that ended within the last day: a new session is not owed
    /// them however late the feed tells of them, an older one is when it was not told.
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
}

/// The answer to a [`QueryRequest`].
pub type QueryOutcome = Result<Answer, Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::wire::{decode, encode};

    #[test]
    fn a_batch_and_its_outcomes_survive_the_wire() {
        let conversation = ConversationId(uuid::Uuid::now_v7());
        let request = Request {
            request_id: "r-1".into(),
            traceparent: None,
            caller: Caller {
                tenant: "default".parse().unwrap(),
                user: "alice".parse().unwrap(),
                admin: false,
            },
            command: Command::SendMessage(SendMessage {
                conversation,
                client_id: ClientId(uuid::Uuid::now_v7()),
                payload: JsonText::trusted(r#"{"kind":"text", "content":1}"#.into()),
                reply_to: None,
                answer: SendAnswer::Ack,
            }),
        };
        let batch = Batch {
            version: VERSION,
            budget_ms: 5000,
            requests: vec![request.clone()],
        };
        let bytes = encode(&batch).unwrap();
        assert!(bytes.len() <= request.command.weight() + 256);
        assert_eq!(decode::<Batch>(&bytes).unwrap().requests, vec![request]);

        let outcomes = vec![
            Ok(Outcome::Added {
                participants: vec![],
            }),
            Err(Failure::field("/kind", "must be given").retry_after(5)),
            Err(Failure::of(Code::Timeout)),
        ];
        let bytes = encode(&Outcomes(outcomes.clone())).unwrap();
        assert_eq!(decode::<Outcomes>(&bytes).unwrap().0, outcomes);
    }
}
