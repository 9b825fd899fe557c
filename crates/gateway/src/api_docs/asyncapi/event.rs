//! Events, as they are heard live, replayed, and read from the log.

use confab_protocol::event::{
    ConversationCreated, ConversationDeleted, ConversationUpdated, Event, EventType, Member,
    MessageDeleted, MessageEdited, ParticipantAdded, ParticipantRemoved, ParticipantUpdated,
    RemovalReason,
};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Message, Role};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Described;
use super::schemas::said;
use crate::api_docs::openapi::samples;

/// Every event.
pub(super) fn events() -> Vec<Described> {
    EventType::ALL
        .iter()
        .map(|event_type| describe(*event_type))
        .collect()
}

fn describe(event_type: EventType) -> Described {
    let name = event_type.as_str().to_owned();
    let mut payload = said::<Event>(&name);
    payload["properties"]["data"] = data_schema(event_type);
    let example = serde_json::to_value(example(event_type)).unwrap_or_default();
    let (summary, description) = texts(event_type);
    Described {
        name,
        summary,
        description,
        payload,
        example,
        answers: &[],
    }
}

fn data_schema(event_type: EventType) -> Value {
    match event_type {
        EventType::MessageCreated => json!({ "$ref": "#/components/schemas/Message" }),
        EventType::MessageEdited => inline::<MessageEdited>(),
        EventType::MessageDeleted => inline::<MessageDeleted>(),
        EventType::ConversationCreated => inline::<ConversationCreated>(),
        EventType::ConversationUpdated => inline::<ConversationUpdated>(),
        EventType::ConversationDeleted => inline::<ConversationDeleted>(),
        EventType::ParticipantAdded => inline::<ParticipantAdded>(),
        EventType::ParticipantUpdated => inline::<ParticipantUpdated>(),
        EventType::ParticipantRemoved => inline::<ParticipantRemoved>(),
    }
}

fn inline<T: ToSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}

const fn texts(event_type: EventType) -> (&'static str, &'static str) {
    match event_type {
        EventType::MessageCreated => (
            "A message was sent.",
            "`clientId` tells a sender which are its own. After an edit or deletion, wherever it is served again, with its present content or none.",
        ),
        EventType::MessageEdited => (
            "A message was edited.",
            "`message` is the whole message; after a later change, wherever it is served again, with its present content or none.",
        ),
        EventType::MessageDeleted => (
            "A message was deleted.",
            "It keeps its seq, and its content is nowhere any more.",
        ),
        EventType::ConversationCreated => (
            "The conversation began.",
            "For its first members it is the joining. What is the caller's alone in `conversation` is null: one event is told to all.",
        ),
        EventType::ConversationUpdated => (
            "The metadata changed.",
            "All of it, after the change, with its version.",
        ),
        EventType::ConversationDeleted => (
            "The conversation was deleted.",
            "It ends all memberships: the last event of every member.",
        ),
        EventType::ParticipantAdded => (
            "Members were added.",
            "All that were added at once; for them it is the joining, and their first event.",
        ),
        EventType::ParticipantUpdated => (
            "A member's role changed.",
            "By an admin, or handed over by a last admin who left.",
        ),
        EventType::ParticipantRemoved => (
            "A member left or was removed.",
            "That member's last event of this membership.",
        ),
    }
}

fn example(event_type: EventType) -> Event {
    let member = |name, role| Member {
        user_id: samples::user(name),
        role,
    };
    match event_type {
        EventType::MessageCreated => event(event_type, &samples::message()),
        EventType::MessageEdited => event(
            event_type,
            &MessageEdited {
                target_seq: 2,
                message: text_of(&edited()),
            },
        ),
        EventType::MessageDeleted => event(
            event_type,
            &MessageDeleted {
                target_seq: 2,
                message_id: samples::MESSAGE_ID,
                deleted_at: samples::later(),
            },
        ),
        EventType::ConversationCreated => {
            let mut conversation = samples::conversation();
            (conversation.role, conversation.joined_at) = (None, None);
            (conversation.last_read_seq, conversation.unread_count) = (None, None);
            let participants = vec![member("alice", Role::Admin), member("bob", Role::Member)];
            event(
                event_type,
                &ConversationCreated {
                    conversation,
                    participants,
                },
            )
        }
        EventType::ConversationUpdated => event(
            event_type,
            &ConversationUpdated {
                metadata: JsonText::trusted(r#"{"name":"Weekend in March"}"#.to_owned()),
                version: 2,
            },
        ),
        EventType::ConversationDeleted => event(
            event_type,
            &ConversationDeleted {
                deleted_at: samples::later(),
            },
        ),
        EventType::ParticipantAdded => event(
            event_type,
            &ParticipantAdded {
                participants: vec![member("carol", Role::Member)],
            },
        ),
        EventType::ParticipantUpdated => event(
            event_type,
            &ParticipantUpdated {
                user_id: samples::user("bob"),
                role: Role::Admin,
            },
        ),
        EventType::ParticipantRemoved => event(
            event_type,
            &ParticipantRemoved {
                user_id: samples::user("bob"),
                reason: RemovalReason::Left,
            },
        ),
    }
}

fn event<T: Serialize>(event_type: EventType, data: &T) -> Event {
    samples::event(event_type, data)
}

fn edited() -> Message {
    Message {
        content: Some(JsonText::trusted(r#"{"text":"hello all"}"#.to_owned())),
        edited_at: Some(samples::later()),
        version: 2,
        ..samples::message()
    }
}

fn text_of(message: &Message) -> JsonText {
    JsonText::of(message).unwrap_or_else(|_unprintable| JsonText::empty_object())
}
