//! What a client says.

use confab_protocol::frame::{
    Auth, ClientFrame, ClientInfo, Delete, Edit, Hello, Plain, Read, Seen, Send, SetPresence,
    Typing,
};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{MessageBody, MessageContent};
use confab_protocol::signal::PresenceStatus;
use serde_json::{Value, json};

use super::Described;
use super::schemas::{frame_id, heard, with_type};
use crate::api_docs::openapi::{content_body, samples};

const ACK_OR_ERROR: &[&str] = &["ack", "error"];
const ERROR_ONLY: &[&str] = &["error"];

/// Every frame of a client.
pub(super) fn frames() -> Vec<Described> {
    samples().iter().map(describe).collect()
}

fn describe(frame: &ClientFrame) -> Described {
    let example = serde_json::to_value(frame).unwrap_or_default();
    let name = example["type"].as_str().unwrap_or_default().to_owned();
    let payload = payload(frame, &name);
    let (summary, description, answers) = texts(frame);
    Described {
        name,
        summary,
        description,
        payload,
        example,
        answers,
    }
}

fn payload(frame: &ClientFrame, name: &str) -> Value {
    match frame {
        ClientFrame::Hello(_) => heard::<Hello>(name),
        ClientFrame::Seen(_) => heard::<Seen>(name),
        ClientFrame::Bye(_) | ClientFrame::Ping(_) => heard::<Plain>(name),
        ClientFrame::Send(_) => send(name),
        ClientFrame::Edit(_) => edit(name),
        ClientFrame::Delete(_) => heard::<Delete>(name),
        ClientFrame::Read(_) => heard::<Read>(name),
        ClientFrame::Typing(_) => heard::<Typing>(name),
        ClientFrame::Presence(_) => heard::<SetPresence>(name),
        ClientFrame::Auth(_) => heard::<Auth>(name),
    }
}

const fn texts(frame: &ClientFrame) -> (&'static str, &'static str, &'static [&'static str]) {
    match frame {
        ClientFrame::Hello(_) => (
            "Opens the session; the first frame.",
            "`token` where the upgrade's header carried none. `seen` says what the client holds, with or without a `resumeToken`: what is above is replayed, or named in `truncated`. It is believed.",
            &["welcome", "error"],
        ),
        ClientFrame::Seen(_) => (
            "Says what the client holds without a gap.",
            "Directly behind a hello that announced it by `seenFollows`, or at any time later: after reading a truncated range it must, to move its position. A later one never moves delivery.",
            ERROR_ONLY,
        ),
        ClientFrame::Bye(_) => (
            "Ends the session for good.",
            "The gateway closes with 1000, and the session cannot be resumed. Any other end leaves it resumable.",
            &[],
        ),
        ClientFrame::Send(_) => (
            "Sends a message.",
            "`id` is the message's clientId: a repeat is stored once, and acknowledged each time with the same seq. The other fields are those of `POST /v1/messages`.",
            ACK_OR_ERROR,
        ),
        ClientFrame::Edit(_) => (
            "Changes a message's content, its metadata, or both.",
            "For its sender, while a member, in a channel while an admin. In one order with the connection's sends to that conversation. An `id` that is a UUID is its key: a repeat is acknowledged as `duplicate` and changes nothing, whatever became of the message. With `ifVersion` PRECONDITION_FAILED where the message has another `version`. The other fields are those of `PATCH /v1/messages/{id}`.",
            ACK_OR_ERROR,
        ),
        ClientFrame::Delete(_) => (
            "Deletes a message.",
            "For its sender, the conversation's admins but in a direct one, and `confab:admin`. In one order with the connection's sends to that conversation. A repeat is acknowledged as `duplicate`. With `ifVersion` PRECONDITION_FAILED where the message stands and has another `version`.",
            ACK_OR_ERROR,
        ),
        ClientFrame::Read(_) => (
            "Moves a read mark forward.",
            "Never back, and never beyond the conversation's last seq: the ack's `seq` says where it stands. A repeat changes nothing.",
            ACK_OR_ERROR,
        ),
        ClientFrame::Typing(_) => (
            "Says that the user types, or stopped to.",
            "It lasts 6 s unless it is said again. Not answered unless it is refused; in a conversation of more than 100 members it is told to nobody.",
            ERROR_ONLY,
        ),
        ClientFrame::Presence(_) => (
            "Says whether the user is there.",
            "A new session is `online`. A user is `away` when all of its sessions are. Not answered unless it is refused.",
            ERROR_ONLY,
        ),
        ClientFrame::Auth(_) => (
            "Renews the session's token.",
            "A fresh one for the same tenant, user and device, before the old one expires.",
            ACK_OR_ERROR,
        ),
        ClientFrame::Ping(_) => (
            "Asks for a pong.",
            "For clients that cannot send the protocol's own pings.",
            &["pong"],
        ),
    }
}

/// The fields of `POST /v1/messages`, with the clientId as `id`.
fn send(name: &str) -> Value {
    each_variant(content_body("SendMessage"), name, |properties| {
        properties["id"] = json!({
            "type": "string",
            "format": "uuid",
            "description": "The message's clientId, a UUID in any form and case; echoed in the answer as it was written.",
        });
        if let Some(properties) = properties.as_object_mut() {
            properties.remove("clientId");
        }
        &["id"]
    })
}

/// The fields of `PATCH /v1/messages/{id}`, with where the message is.
fn edit(name: &str) -> Value {
    each_variant(content_body("EditMessage"), name, |properties| {
        properties["id"] = frame_id();
        properties["conversationId"] = json!({ "$ref": "#/components/schemas/ConversationId" });
        properties["messageId"] = json!({ "$ref": "#/components/schemas/EventId" });
        properties["ifVersion"] = json!({
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "The version that the message must have.",
        });
        &["conversationId", "messageId"]
    })
}

/// Makes a frame of each variant of a body; `add` says which of the properties that it adds are required.
fn each_variant(
    mut body: Value,
    name: &str,
    add: impl Fn(&mut Value) -> &'static [&'static str],
) -> Value {
    for variant in body["oneOf"].as_array_mut().into_iter().flatten() {
        let required = add(&mut variant["properties"]);
        if let Some(names) = variant["required"].as_array_mut() {
            names.extend(required.iter().map(|name| json!(name)));
        }
        *variant = with_type(variant.take(), name);
    }
    body["description"] = Value::Null;
    if let Some(body) = body.as_object_mut() {
        body.remove("description");
    }
    body
}

/// A frame of every kind.
fn samples() -> Vec<ClientFrame> {
    let id = || Some("7".to_owned());
    let conversation_id: ConversationId = samples::CONVERSATION_ID;
    let message_id: EventId = samples::MESSAGE_ID;
    let content = || Some(JsonText::trusted(r#"{"text":"hello"}"#.to_owned()));
    vec![
        ClientFrame::Hello(Hello {
            token: Some("eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl".to_owned()),
            seen: Some([(conversation_id, 41)].into()),
            client: Some(ClientInfo {
                name: "web".to_owned(),
                version: Some("1.4.0".to_owned()),
            }),
            ..Hello::default()
        }),
        ClientFrame::Seen(Seen {
            id: None,
            positions: [(conversation_id, 60)].into(),
        }),
        ClientFrame::Bye(Plain::default()),
        ClientFrame::Send(Send {
            id: samples::CLIENT_ID.into(),
            conversation_id,
            body: MessageBody {
                kind: "text".to_owned(),
                content: content(),
                encrypted_content: None,
                payload_size_bytes: None,
                reply_to: None,
                metadata: JsonText::empty_object(),
            },
        }),
        ClientFrame::Edit(Edit {
            id: id(),
            conversation_id,
            message_id,
            if_version: Some(1),
            content: Some(MessageContent {
                content: content(),
                encrypted_content: None,
                payload_size_bytes: None,
            }),
            metadata: None,
        }),
        ClientFrame::Delete(Delete {
            id: id(),
            conversation_id,
            message_id,
            if_version: None,
        }),
        ClientFrame::Read(Read {
            id: id(),
            conversation_id,
            up_to_seq: 60,
        }),
        ClientFrame::Typing(Typing {
            id: None,
            conversation_id,
            on: true,
        }),
        ClientFrame::Presence(SetPresence {
            id: None,
            status: PresenceStatus::Away,
        }),
        ClientFrame::Auth(Auth {
            id: id(),
            token: "eyJhbGciOiJFUzI1NiJ9.e30.bmV3ZXI".to_owned(),
        }),
        ClientFrame::Ping(Plain { id: id() }),
    ]
}
