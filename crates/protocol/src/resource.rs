//! What clients read: conversations, participants, messages (docs/protocol/http.md).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ClientId, ConversationId, EventId, Seq, SessionId, UserId};
use crate::json::JsonText;
use crate::schema;
use crate::timestamp::Timestamp;

/// What kind of conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConversationType {
    /// Two fixed members, both admins, one such conversation a pair.
    Direct,
    /// Up to 1,000 members; all may send.
    Group,
    /// Up to 100,000 members; only admins send.
    Channel,
}

impl ConversationType {
    /// The type as it stands on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Channel => "channel",
        }
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads and, but in a channel, sends.
    #[default]
    Member,
    /// Also changes the conversation and its members.
    Admin,
}

impl std::str::FromStr for ConversationType {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Direct, Self::Group, Self::Channel]
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or(UnknownName)
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Member, Self::Admin]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or(UnknownName)
    }
}

/// A name that is none of those known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a known name")]
pub struct UnknownName;

impl Role {
    /// The role as it stands on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

/// A conversation, and what it is to the caller: null where the caller is no member (`confab:admin`) or none is meant (events).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Its type.
    pub r#type: ConversationType,
    /// Name, description, avatar, custom; never null, but `{}`.
    #[schema(schema_with = schema::conversation_metadata)]
    pub metadata: JsonText,
    /// Counts metadata changes, from 1.
    pub version: u64,
    /// Who created it.
    pub created_by: UserId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its metadata last changed.
    pub updated_at: Timestamp,
    /// When it was deleted.
    #[schema(required)]
    pub deleted_at: Option<Timestamp>,
    /// The last event's number.
    #[schema(value_type = u64)]
    pub last_seq: Seq,
    /// When the last event was appended.
    pub last_event_at: Timestamp,
    /// The caller's role.
    #[schema(required)]
    pub role: Option<Role>,
    /// When the caller's membership began.
    #[schema(required)]
    pub joined_at: Option<Timestamp>,
    /// Up to where the caller has read.
    #[schema(required, value_type = Option<u64>)]
    pub last_read_seq: Option<Seq>,
    /// Messages of others above `lastReadSeq` that are not deleted, counted up to 1,000. That number also says that there are more, or more
    /// than 1,000 deleted ones among them.
    #[schema(required)]
    pub unread_count: Option<u64>,
    /// The last message, in lists; null elsewhere and where there is none.
    #[schema(required)]
    pub last_message: Option<MessagePreview>,
    /// The other one of a direct conversation; of a group the first five in the order of their joining, the caller among them or not. In lists
    /// and where the conversation is read by itself; null elsewhere, and of a channel.
    #[schema(required)]
    pub members: Option<Vec<MemberPreview>>,
    /// How many members there are, where the conversation is listed or read; null elsewhere.
    #[schema(required)]
    pub member_count: Option<u64>,
}

/// What a conversation shows of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberPreview {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
}

/// What a list shows of a conversation's last message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagePreview {
    /// Its id.
    pub id: EventId,
    /// Its number.
    #[schema(value_type = u64)]
    pub seq: Seq,
    /// Who sent it.
    pub sender: UserId,
    /// `text`, `image`, `file`, `audio`, `video` or `x-…`.
    #[schema(schema_with = schema::message_kind)]
    pub kind: String,
    /// Its content where that is in clear and at most 1 KiB.
    #[schema(required, schema_with = schema::preview_content)]
    pub content: Option<JsonText>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was deleted.
    #[schema(required)]
    pub deleted_at: Option<Timestamp>,
}

/// A membership as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    /// Whose membership.
    pub user_id: UserId,
    /// What it may do.
    pub role: Role,
    /// When it began.
    pub joined_at: Timestamp,
    /// When it ended.
    #[schema(required)]
    pub left_at: Option<Timestamp>,
    /// Up to where the user has read.
    #[schema(value_type = u64)]
    pub last_read_seq: Seq,
}

/// What a sender gives of a message, and what the log keeps of it: the payload of a `message.created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageBody {
    /// `text`, `image`, `file`, `audio`, `video` or `x-…`.
    pub kind: String,
    /// The content in clear, byte for byte as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<JsonText>,
    /// The content encrypted, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
    /// The decoded size of `encrypted_content`, in bytes.
    pub payload_size_bytes: Option<u64>,
    /// The message that this one answers.
    pub reply_to: Option<EventId>,
    /// The sender's own fields; never null, but `{}`.
    pub metadata: JsonText,
}

/// What an edit changes of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageChange {
    /// The new content; none where it stays.
    pub content: Option<MessageContent>,
    /// A JSON merge patch (RFC 7396) of the metadata; none where they stay.
    pub metadata: Option<JsonText>,
}

/// A message's content alone: what an edit replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageContent {
    /// The content in clear, byte for byte as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<JsonText>,
    /// The content encrypted, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
    /// The decoded size of `encrypted_content`, in bytes.
    pub payload_size_bytes: Option<u64>,
}

/// A session that is open now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The device, as its token says.
    pub device_id: String,
    /// The login, as its token says; empty where tokens name none.
    pub login_session_id: String,
    /// Since when the connection stands.
    pub since: Timestamp,
    /// When anything last came from the client.
    pub last_seen_at: Timestamp,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id: that of its `message.created`.
    pub id: EventId,
    /// Where it was sent.
    pub conversation_id: ConversationId,
    /// Its number.
    #[schema(value_type = u64)]
    pub seq: Seq,
    /// Who sent it.
    pub sender: UserId,
    /// The sender's id of it.
    #[schema(required)]
    pub client_id: Option<ClientId>,
    /// `text`, `image`, `file`, `audio`, `video` or `x-…`.
    #[schema(schema_with = schema::message_kind)]
    pub kind: String,
    /// The content in clear; absent where it is encrypted or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::content)]
    pub content: Option<JsonText>,
    /// The content encrypted, in base64; absent where it is in clear or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::encrypted_content)]
    pub encrypted_content: Option<String>,
    /// The decoded size of `encryptedContent`, in bytes.
    #[schema(required)]
    pub payload_size_bytes: Option<u64>,
    /// The message that this one answers.
    #[schema(required)]
    pub reply_to: Option<EventId>,
    /// The sender's own fields; never null, but `{}`.
    #[schema(schema_with = schema::message_metadata)]
    pub metadata: JsonText,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last edited.
    #[schema(required)]
    pub edited_at: Option<Timestamp>,
    /// When it was deleted.
    #[schema(required)]
    pub deleted_at: Option<Timestamp>,
    /// 1 as it was sent, and one more with each edit and its deletion.
    #[serde(default = "first_version")]
    #[schema(required, minimum = 1)]
    pub version: u64,
}

/// The version of a message that nothing says of: of an event from before there were any.
const fn first_version() -> u64 {
    1
}
