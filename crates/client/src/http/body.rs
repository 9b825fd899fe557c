//! The bodies of requests and answers (API.md, HTTP).

use confab_protocol::event::Member;
use confab_protocol::ids::{ClientId, ConversationId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{
    Conversation, ConversationType, Message, MessageBody, Participant,
};
use confab_protocol::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// A conversation to begin.
#[derive(Debug, Clone, Serialize)]
pub struct NewConversation {
    /// What kind.
    pub r#type: ConversationType,
    /// The first members. Of a direct conversation both; of a group the caller may be left out.
    pub participants: Vec<UserId>,
    /// Name, description, avatar, custom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonText>,
}

/// Members to add.
#[derive(Debug, Clone, Serialize)]
pub struct NewMembers {
    /// Whom, and as what: at most 1,000.
    pub participants: Vec<Member>,
}

/// A message to send.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMessage {
    /// Where to.
    pub conversation_id: ConversationId,
    /// Makes it idempotent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The message.
    #[serde(flatten)]
    pub body: MessageBody,
}

/// An answer that a repeat is given again.
#[derive(Debug, Clone)]
pub struct Replayable<T> {
    /// The answer.
    pub answer: T,
    /// Whether it was given before (`Idempotent-Replayed`).
    pub replayed: bool,
}

/// A conversation with its first participants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView {
    /// The conversation, and what it is to the caller.
    pub conversation: Conversation,
    /// The current participants by joining, the first 100.
    pub participants: Vec<Participant>,
    /// Where their next page begins; none when these are all.
    pub participants_next_cursor: Option<String>,
}

/// A page of conversations.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationPage {
    /// In the order asked for.
    pub conversations: Vec<Conversation>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

/// A page of messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage {
    /// Newest first.
    pub messages: Vec<Message>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

/// A membership that ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The membership as it ended.
    pub participant: Participant,
    /// When the conversation was deleted because its last member left.
    #[serde(default)]
    pub conversation_deleted_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ParticipantsAnswer {
    pub(super) participants: Vec<Participant>,
}

#[derive(Debug, Deserialize)]
pub(super) struct MessageAnswer {
    pub(super) message: Message,
}
