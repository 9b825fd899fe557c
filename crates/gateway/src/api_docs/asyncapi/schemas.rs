//! Frames as schemas: a type's own schema, with `type` in front.

use confab_protocol::error::{Code, FieldError};
use confab_protocol::event::{
    ConversationCreated, ConversationDeleted, ConversationUpdated, Event, MessageDeleted,
    MessageEdited, ParticipantAdded, ParticipantRemoved, ParticipantUpdated,
};
use confab_protocol::frame::{
    Ack, ErrorFrame, Goaway, Hello, PresenceSignal, PresenceSnapshot, ReceiptSignal, TokenExpiring,
    TypingSignal, Welcome,
};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Every schema that a frame or an event refers to.
pub(super) fn all() -> Map<String, Value> {
    let mut found = Vec::new();
    for collect in [
        Ack::schemas,
        ConversationCreated::schemas,
        ConversationDeleted::schemas,
        ConversationUpdated::schemas,
        ErrorFrame::schemas,
        Event::schemas,
        Goaway::schemas,
        Hello::schemas,
        MessageDeleted::schemas,
        MessageEdited::schemas,
        ParticipantAdded::schemas,
        ParticipantRemoved::schemas,
        ParticipantUpdated::schemas,
        PresenceSignal::schemas,
        PresenceSnapshot::schemas,
        ReceiptSignal::schemas,
        TokenExpiring::schemas,
        TypingSignal::schemas,
        Welcome::schemas,
    ] {
        collect(&mut found);
    }
    found.push(named::<Code>());
    found.push(named::<FieldError>());
    let all = found
        .into_iter()
        .map(|(name, schema)| (name, value(schema)));
    all.collect()
}

fn named<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

fn value(schema: RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// What the gateway says: more members may be there later.
pub(super) fn said<T: PartialSchema>(name: &str) -> Value {
    with_type(value(T::schema()), name)
}

/// What the gateway hears: unknown members are refused.
pub(super) fn heard<T: PartialSchema>(name: &str) -> Value {
    let mut schema = with_type(value(T::schema()), name);
    schema["additionalProperties"] = json!(false);
    if let Some(id) = schema.pointer_mut("/properties/id") {
        *id = frame_id();
    }
    schema
}

/// Puts `type` into the schema of an object.
pub(super) fn with_type(mut schema: Value, name: &str) -> Value {
    schema["properties"]["type"] = json!({ "type": "string", "const": name });
    let required = schema["required"].take();
    let mut names = vec![json!("type")];
    let others = required.as_array().into_iter().flatten();
    names.extend(others.filter(|name| *name != "type").cloned());
    schema["required"] = names.into();
    schema
}

/// The id of a frame, which its answer has as well.
pub(super) fn frame_id() -> Value {
    json!({
        "type": ["string", "null"],
        "maxLength": 128,
        "description": "Echoed in the answer: at most 128 bytes.",
    })
}
