//! What answers look like: resources under their names.

use std::collections::BTreeMap;

use confab_protocol::event::Event;
use confab_protocol::frame::PresenceSignal;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::{Conversation, Message, Participant, Session};
use confab_protocol::revocation::RevocationView;
use confab_protocol::timestamp::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A conversation with its first participants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationWithParticipants {
    /// The conversation.
    pub(crate) conversation: Conversation,
    /// Its present participants in the order of their joining, the first 100.
    pub(crate) participants: Vec<Participant>,
    /// Where the list of participants goes on: the `cursor` of the next page; null when these are all.
    #[schema(required)]
    pub(crate) participants_next_cursor: Option<String>,
}

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConversationAlone {
    /// The conversation, as the caller sees it; `lastMessage` is null.
    pub(crate) conversation: Conversation,
}

/// A page of conversations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationPage {
    /// The conversations; a page may hold fewer than `limit`, also when more follow.
    pub(crate) conversations: Vec<Conversation>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// A deletion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationDeletion {
    /// Always true.
    pub(crate) deleted: bool,
    /// Since when: the same at every repeat.
    pub(crate) deleted_at: Timestamp,
}

/// A participant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParticipantAlone {
    /// The participant.
    pub(crate) participant: Participant,
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
    pub(crate) participants: Vec<Participant>,
}

/// A page of participants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParticipantPage {
    /// The participants in the order of their joining.
    pub(crate) participants: Vec<Participant>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// A membership that ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParticipantRemoval {
    /// The membership as it ended, with `leftAt`.
    pub(crate) participant: Participant,
    /// When the conversation was deleted, because its last member left; null where it goes on.
    #[schema(required)]
    pub(crate) conversation_deleted_at: Option<Timestamp>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageAlone {
    /// The message.
    pub(crate) message: Message,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessagePage {
    /// The messages, the newest first.
    pub(crate) messages: Vec<Message>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// A part of a log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventPage {
    /// The events in order, without a gap.
    pub(crate) events: Vec<Event>,
    /// The conversation's last seq: more is there while the last event's seq is below it.
    pub(crate) head_seq: u64,
}

/// Where read marks stand.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadMarks {
    /// By conversation, the seq up to which the caller has read.
    pub(crate) read: BTreeMap<ConversationId, u64>,
}

/// Who is there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PresenceAnswer {
    /// Those users asked about who share a conversation with the caller, in the order asked.
    pub(crate) presences: Vec<PresenceSignal>,
    /// Whether every gateway answered: else one that is `offline` here may be there.
    pub(crate) complete: bool,
}

/// The caller's open sessions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionsAnswer {
    /// The sessions.
    pub(crate) sessions: Vec<Session>,
}

/// What is revoked, now or since before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevocationAnswer {
    /// The revocation.
    pub(crate) revocation: RevocationView,
}
