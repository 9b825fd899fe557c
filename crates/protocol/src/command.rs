//! What gateways ask of workers to change: most commands append to a log.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Member;
use crate::ids::{ClientId, ConversationId, EventId, Seq, TenantId, UserId};
use crate::json::JsonText;
use crate::resource::{ConversationType, Participant, Role};
use crate::revocation::{Revocation, RevocationTarget};
use crate::timestamp::Timestamp;

mod part;
mod weight;

pub use part::Part;

/// The version of commands and their answers. A worker refuses another, and listens on a subject with this number.
pub const COMMAND_VERSION: u8 = 2;

/// The caller, as the verified token names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// The product.
    pub tenant: TenantId,
    /// The user: the only identity a command has.
    pub user: UserId,
    /// True if the token has `confab:admin`: acts in any conversation of its tenant without being a member.
    pub admin: bool,
}

/// Several commands in one NATS message, answered in [`Part`]s by their places in it. Whoever sends it may keep them and lend them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Batch<R = Request> {
    /// [`COMMAND_VERSION`].
    pub version: u8,
    /// How many milliseconds are left to answer, from the moment of sending.
    pub budget_ms: u32,
    /// When it was sent at the earliest, by the clock of each worker that its sender has heard of; absent from a gateway that
    /// knows nothing of this.
    #[serde(default)]
    pub sent: Option<Vec<SentAfter>>,
    /// The commands. Those of one conversation are carried out in this order.
    pub requests: Vec<R>,
}

/// When a batch was sent at the earliest, by the clock of one worker that may read it: a lower bound made of durations only,
/// so that no clocks of two hosts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAfter {
    /// Which worker's clock.
    pub worker: Uuid,
    /// Milliseconds since that worker's beginning.
    pub ms: u64,
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
    /// The id that the first event of the command gets, made by the gateway: a second try of the gateway's own is told from a repeat of
    /// the client's by it. None where the command has such an id itself, appends nothing, or comes from a gateway that knows nothing of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
    /// What for.
    pub command: Command,
}

/// A request to change something. Each that appends to a log has a key by which a second execution finds the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begin a conversation.
    CreateConversation(CreateConversation),
    /// Change a conversation's metadata.
    UpdateConversation(UpdateConversation),
    /// Delete a conversation.
    DeleteConversation(DeleteConversation),
    /// Add members.
    AddParticipants(AddParticipants),
    /// Change a member's role.
    UpdateParticipant(UpdateParticipant),
    /// Remove a member, or leave.
    RemoveParticipant(RemoveParticipant),
    /// Send a message.
    SendMessage(SendMessage),
    /// Change a message's content, its metadata, or both.
    EditMessage(EditMessage),
    /// Delete a message.
    DeleteMessage(DeleteMessage),
    /// Move read marks forward. It appends nothing.
    MarkRead(MarkRead),
    /// Revoke a session, a login, or tokens. It appends nothing.
    Revoke(Revoke),
}

impl Command {
    /// All names that [`Self::name`] gives.
    pub const NAMES: [&'static str; 11] = [
        "create_conversation",
        "update_conversation",
        "delete_conversation",
        "add_participants",
        "update_participant",
        "remove_participant",
        "send_message",
        "edit_message",
        "delete_message",
        "mark_read",
        "revoke",
    ];

    /// The conversation whose log is appended to, where the command names it; a creation makes its own.
    #[must_use]
    pub const fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::CreateConversation(_) | Self::MarkRead(_) | Self::Revoke(_) => None,
            Self::UpdateConversation(update) => Some(update.conversation),
            Self::DeleteConversation(delete) => Some(delete.conversation),
            Self::AddParticipants(add) => Some(add.conversation),
            Self::UpdateParticipant(update) => Some(update.conversation),
            Self::RemoveParticipant(remove) => Some(remove.conversation),
            Self::SendMessage(send) => Some(send.conversation),
            Self::EditMessage(edit) => edit.conversation,
            Self::DeleteMessage(delete) => delete.conversation,
        }
    }

    /// The command's name in metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateConversation(_) => "create_conversation",
            Self::UpdateConversation(_) => "update_conversation",
            Self::DeleteConversation(_) => "delete_conversation",
            Self::AddParticipants(_) => "add_participants",
            Self::UpdateParticipant(_) => "update_participant",
            Self::RemoveParticipant(_) => "remove_participant",
            Self::SendMessage(_) => "send_message",
            Self::EditMessage(_) => "edit_message",
            Self::DeleteMessage(_) => "delete_message",
            Self::MarkRead(_) => "mark_read",
            Self::Revoke(_) => "revoke",
        }
    }
}

/// Begin a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateConversation {
    /// The id that it gets, made by the gateway: a second try of the gateway's own is told from a repeat by it.
    pub conversation: ConversationId,
    /// The idempotency key, the caller's or the gateway's: unique by tenant and user for 24 hours.
    pub key: String,
    /// SHA-256 of what the request says, however it was written: what a repeat is compared with.
    pub request_hash: [u8; 32],
    /// What kind.
    pub r#type: ConversationType,
    /// The users named, each once, in the request's order; the caller among them or not.
    pub participants: Vec<UserId>,
    /// The checked metadata object.
    pub metadata: JsonText,
}

/// Change a conversation's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConversation {
    /// Which.
    pub conversation: ConversationId,
    /// The checked JSON merge patch (RFC 7396) of the metadata object; null removes a member.
    pub patch: JsonText,
    /// The version that the conversation must have.
    pub expected_version: Option<u64>,
    /// The command's key.
    pub client_id: ClientId,
}

/// Delete a conversation, softly: its log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteConversation {
    /// Which.
    pub conversation: ConversationId,
    /// The command's key.
    pub client_id: ClientId,
}

/// Change a member's role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateParticipant {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// What it becomes.
    pub role: Role,
    /// The command's key.
    pub client_id: ClientId,
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
    /// The id that the message gets, made by the gateway: a second try of the gateway's own is told from a repeat by it.
    pub message: EventId,
    /// The command's key.
    pub client_id: ClientId,
    /// The [`MessageBody`](crate::resource::MessageBody) as JSON, encoded by the gateway, kept as it is.
    pub payload: JsonText,
    /// The message that this one answers, as in the payload.
    pub reply_to: Option<EventId>,
    /// What the sender wants to hear.
    pub answer: SendAnswer,
}

/// Change a message's content, its metadata, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMessage {
    /// Where it is, where the caller says so: then it must be there.
    pub conversation: Option<ConversationId>,
    /// Which.
    pub message: EventId,
    /// The new [`MessageContent`](crate::resource::MessageContent) as JSON, encoded by the gateway, kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<JsonText>,
    /// The checked JSON merge patch (RFC 7396) of the message's metadata; null removes a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonText>,
    /// The version that the message must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// The command's key.
    pub client_id: ClientId,
    /// What the caller wants to hear.
    pub answer: SendAnswer,
}

/// Delete a message: it keeps its seq and loses its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMessage {
    /// Where it is, where the caller says so: then it must be there.
    pub conversation: Option<ConversationId>,
    /// Which.
    pub message: EventId,
    /// The version that the message must have, unless it is deleted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// The command's key.
    pub client_id: ClientId,
    /// What the caller wants to hear.
    pub answer: SendAnswer,
}

/// Move read marks forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkRead {
    /// One conversation's, up to this seq, and never above its head.
    UpTo {
        /// Where.
        conversation: ConversationId,
        /// The last seq that was read.
        seq: Seq,
    },
    /// Each message's conversation's, up to the message. All of them must be in conversations that the caller is in.
    Messages(Vec<EventId>),
}

/// Revoke what a token or session gives. A repeat changes nothing but its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// What.
    pub target: RevocationTarget,
    /// The command's key, where the caller gave one: of its tenant and user. A repeat moves no time then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ClientId>,
}

/// The answer that a sender wants for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendAnswer {
    /// Its number and id.
    Ack,
    /// The whole message.
    Message,
}

/// The outcome of a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The conversation began, now or when the key was first used.
    Created(Created),
    /// The metadata changed.
    Updated {
        /// The conversation behind the change, as its caller sees it.
        conversation: JsonText,
        /// True if the key was used before.
        #[serde(default)]
        replayed: bool,
    },
    /// The conversation is deleted, now or before.
    Deleted {
        /// Since when.
        deleted_at: Timestamp,
        /// True if the key was used before.
        #[serde(default)]
        replayed: bool,
    },
    /// The members were added.
    Added {
        /// In the request's order.
        participants: Vec<Participant>,
        /// True if the key was used before.
        #[serde(default)]
        replayed: bool,
    },
    /// The member's role changed.
    RoleChanged {
        /// The membership with its role.
        participant: Participant,
        /// True if the key was used before.
        #[serde(default)]
        replayed: bool,
    },
    /// The membership ended.
    Removed {
        /// The membership as it ended.
        participant: Participant,
        /// When the conversation was deleted because its last member left.
        conversation_deleted_at: Option<Timestamp>,
        /// True if the key was used before.
        #[serde(default)]
        replayed: bool,
    },
    /// The message, its edit or its deletion is stored.
    Sent(Sent),
    /// The read marks stand at least where they were asked to.
    Read(Vec<ReadMark>),
    /// What was revoked is revoked.
    Revoked(Revocation),
}

/// A conversation began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its id.
    pub conversation: ConversationId,
    /// The first answer's body: `{conversation, participants, participantsNextCursor}`.
    pub body: JsonText,
    /// True if the key was used before.
    pub replayed: bool,
}

/// A message, its edit or its deletion is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message's id.
    pub message_id: EventId,
    /// Where it is.
    pub conversation: ConversationId,
    /// The event's number: of the message, or of its edit or deletion.
    pub seq: Seq,
    /// When the event was stored.
    pub created_at: Timestamp,
    /// True if it was stored before.
    pub duplicate: bool,
    /// The message as it is now, where it was asked for.
    pub message: Option<JsonText>,
}

/// The position of a read mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Up to where the caller has read.
    pub up_to: Seq,
    /// True if this command moved it.
    pub moved: bool,
    /// How many members the conversation has: above [`SIGNAL_MEMBERS`](crate::limits::SIGNAL_MEMBERS) a receipt is told to the caller's sessions alone.
    pub members: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn a_batch_survives_the_wire() {
        let conversation = ConversationId(Uuid::now_v7());
        let request = Request {
            request_id: "r-1".into(),
            traceparent: None,
            event: None,
            caller: Caller {
                tenant: "default".parse().unwrap(),
                user: "alice".parse().unwrap(),
                admin: false,
            },
            command: Command::SendMessage(SendMessage {
                conversation,
                message: EventId(conversation.0),
                client_id: ClientId(Uuid::now_v7()),
                payload: JsonText::trusted(r#"{"kind":"text", "content":1}"#.into()),
                reply_to: None,
                answer: SendAnswer::Ack,
            }),
        };
        let batch = Batch {
            version: COMMAND_VERSION,
            budget_ms: 5000,
            sent: Some(vec![SentAfter {
                worker: Uuid::max(),
                ms: u64::MAX,
            }]),
            requests: vec![request.clone()],
        };
        let bytes = encode(&batch).unwrap();
        assert!(bytes.len() <= request.weight());
        assert_eq!(decode::<Batch>(&bytes).unwrap().requests, vec![request]);
    }
}
