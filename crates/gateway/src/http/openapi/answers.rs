//! What answers look like: resources under their names.

use std::collections::BTreeMap;

use confab_protocol::event::Event;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::{Conversation, Message, Participant};
use confab_protocol::timestamp::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A conversation with its first participants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationWithParticipants {
    /// The conversation.
    pub(super) conversation: Conversation,
    /// Its present participants in the order of their joining, the first 100.
    pub(super) participants: Vec<Participant>,
    /// Where the list of participants goes on: the `cursor` of the next page; null when these are all.
    #[schema(required)]
    pub(super) participants_next_cursor: Option<String>,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConversationAlone {
    /// The conversation, as the caller sees it; `lastMessage` is null.
    pub(super) conversation: Conversation,
}

/// A page of conversations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationPage {
    /// The conversations; a page may hold fewer than `limit`, also when more follow.
    pub(super) conversations: Vec<Conversation>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// A deletion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationDeletion {
    /// Always true.
    pub(super) deleted: bool,
    /// Since when: the same at every repeat.
    pub(super) deleted_at: Timestamp,
}

/// A participant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParticipantAlone {
    /// The participant.
    pub(super) participant: Participant,
}

/// What was added: `participant` where one was asked for by itself, else `participants` in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ParticipantsAdded {
    /// One.
    One(ParticipantAlone),
    /// Several.
    Many(Participants),
}

/// Participants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Participants {
    /// The participants, in the order of the request.
    pub(super) participants: Vec<Participant>,
}

/// A page of participants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParticipantPage {
    /// The participants in the order of their joining.
    pub(super) participants: Vec<Participant>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// A membership that ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParticipantRemoval {
    /// The membership as it ended, with `leftAt`.
    pub(super) participant: Participant,
    /// When the conversation was deleted, because its last member left; null where it goes on.
    #[schema(required)]
    pub(super) conversation_deleted_at: Option<Timestamp>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageAlone {
    /// The message.
    pub(super) message: Message,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessagePage {
    /// The messages, the newest first.
    pub(super) messages: Vec<Message>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// A part of a log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventPage {
    /// The events in order, without a gap.
    pub(super) events: Vec<Event>,
    /// The conversation's last seq: more is there while the last event's seq is below it.
    pub(super) head_seq: u64,
}

/// Where read marks stand.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadMarks {
    /// By conversation, the seq up to which the caller has read.
    pub(super) read: BTreeMap<ConversationId, u64>,
}
