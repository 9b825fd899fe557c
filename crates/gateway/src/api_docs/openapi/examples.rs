//! Examples of requests and answers, made of the types themselves.

use std::collections::BTreeMap;

use confab_protocol::event::EventType;
use confab_protocol::frame::PresenceSignal;
use confab_protocol::resource::{ConversationType, Participant, Role};
use confab_protocol::signal::PresenceStatus;
use serde::Serialize;
use serde_json::{Value, json};

use super::samples::{
    CLIENT_ID, CONVERSATION_ID, MESSAGE_ID, SESSION_ID, at, conversation, deleted, event, later,
    listed, message, participant, revocation, session, user,
};
use super::{answers, bodies};
use crate::api_docs::openapi::answers::PresenceAnswer;
use crate::api_docs::openapi::answers::{RevocationAnswer, SessionsAnswer};

/// The request bodies of an operation. Their names are sorted, and `/docs` shows the first.
pub(super) fn request(operation: &str) -> Option<Value> {
    match operation {
        "createConversation" => creations(),
        "updateConversation" => named([("rename", value(&change()))]),
        "addParticipants" => additions(),
        "updateParticipant" => named([(
            "promote",
            value(&bodies::UpdateParticipant { role: Role::Admin }),
        )]),
        "sendMessage" => named([("clearText", in_clear()), ("encrypted", encrypted())]),
        "editMessage" => named([
            (
                "clearText",
                value(&bodies::EditMessage {
                    content: clear("hello all"),
                    metadata: None,
                }),
            ),
            (
                "metadata",
                value(&bodies::EditMessage {
                    content: bodies::Content::default(),
                    metadata: Some(json!({ "mentions": ["bob"] })),
                }),
            ),
        ]),
        "markRead" => marks(),
        "revoke" => revocations(),
        _ => None,
    }
}

/// The bodies of an operation's success.
pub(super) fn response(operation: &str) -> Option<Value> {
    let whole = || answers::MessageAlone { message: message() };
    match operation {
        "createConversation" | "getConversation" => one(&answers::ConversationWithParticipants {
            conversation: conversation(),
            participants: vec![
                participant("alice", Role::Admin),
                participant("bob", Role::Member),
            ],
            participants_next_cursor: None,
        }),
        "updateConversation" => one(&answers::ConversationAlone {
            conversation: conversation(),
        }),
        "listConversations" => one(&answers::ConversationPage {
            conversations: vec![listed()],
            next_cursor: None,
        }),
        "deleteConversation" => one(&answers::ConversationDeletion {
            deleted: true,
            deleted_at: later(),
        }),
        "listParticipants" => one(&answers::ParticipantPage {
            participants: vec![participant("bob", Role::Member)],
            next_cursor: None,
        }),
        "addParticipants" => added(),
        "updateParticipant" => one(&answers::ParticipantAlone {
            participant: participant("bob", Role::Admin),
        }),
        "removeParticipant" => one(&answers::ParticipantRemoval {
            participant: Participant {
                left_at: Some(later()),
                ..participant("bob", Role::Member)
            },
            conversation_deleted_at: None,
        }),
        "sendMessage" | "getMessage" | "editMessage" => one(&whole()),
        "deleteMessage" => one(&answers::MessageAlone { message: deleted() }),
        "listMessages" | "listMessagesOfConversation" => one(&answers::MessagePage {
            messages: vec![message()],
            next_cursor: None,
        }),
        "listEvents" => one(&answers::EventPage {
            events: vec![event(EventType::MessageCreated, &message())],
            head_seq: 2,
        }),
        "getPresence" => one(&PresenceAnswer {
            presences: vec![PresenceSignal {
                user_id: user("bob"),
                status: PresenceStatus::Away,
            }],
            complete: true,
        }),
        "markRead" => one(&answers::ReadMarks {
            read: BTreeMap::from([(CONVERSATION_ID, 2)]),
        }),
        "listSessions" => one(&SessionsAnswer {
            sessions: vec![session()],
        }),
        "revokeSession" | "revoke" => one(&RevocationAnswer {
            revocation: revocation(),
        }),
        _ => None,
    }
}

fn added() -> Option<Value> {
    let one = answers::ParticipantAlone {
        participant: participant("carol", Role::Member),
    };
    let several = answers::Participants {
        participants: vec![
            participant("carol", Role::Member),
            participant("dave", Role::Admin),
        ],
    };
    named([
        ("one", value(&answers::ParticipantsAdded::One(one))),
        ("several", value(&answers::ParticipantsAdded::Many(several))),
    ])
}

/// A body, as it goes over the wire.
fn value(example: &impl Serialize) -> Value {
    serde_json::to_value(example).unwrap_or_default()
}

fn named<const N: usize>(examples: [(&str, Value); N]) -> Option<Value> {
    let mut all = json!({});
    for (name, example) in examples {
        all[name] = json!({ "value": example });
    }
    Some(all)
}

fn one(example: &impl Serialize) -> Option<Value> {
    named([("example", value(example))])
}

fn creations() -> Option<Value> {
    let create = |r#type, names: &[&str], metadata| {
        value(&bodies::CreateConversation {
            r#type,
            participants: names.iter().copied().map(user).collect(),
            metadata,
        })
    };
    let metadata = bodies::NewMetadata {
        name: Some("Weekend"),
        ..bodies::NewMetadata::default()
    };
    named([
        (
            "group",
            create(ConversationType::Group, &["bob"], Some(metadata)),
        ),
        (
            "direct",
            create(ConversationType::Direct, &["alice", "bob"], None),
        ),
    ])
}

fn change() -> bodies::UpdateConversation {
    let metadata = bodies::MetadataPatch {
        name: Some("Weekend in March"),
        ..bodies::MetadataPatch::default()
    };
    bodies::UpdateConversation { metadata }
}

fn additions() -> Option<Value> {
    let addition = |name, role| bodies::Addition {
        user_id: user(name),
        role,
    };
    let participants = vec![addition("carol", None), addition("dave", Some(Role::Admin))];
    let several = bodies::Additions { participants };
    named([
        (
            "one",
            value(&bodies::AddParticipants::One(addition("carol", None))),
        ),
        ("several", value(&bodies::AddParticipants::Many(several))),
    ])
}

fn clear(text: &str) -> bodies::Content {
    bodies::Content {
        content: Some(json!({ "text": text })),
        ..bodies::Content::default()
    }
}

fn to_send(content: bodies::Content) -> bodies::SendMessage {
    bodies::SendMessage {
        conversation_id: CONVERSATION_ID,
        client_id: Some(CLIENT_ID),
        kind: "text",
        content,
        reply_to: None,
        metadata: None,
    }
}

fn in_clear() -> Value {
    value(&to_send(clear("hello")))
}

fn encrypted() -> Value {
    value(&to_send(bodies::Content {
        encrypted_content: Some("AAEC"),
        payload_size_bytes: Some(3),
        ..bodies::Content::default()
    }))
}

fn marks() -> Option<Value> {
    let up_to = bodies::UpTo {
        conversation_id: CONVERSATION_ID,
        up_to_seq: 2,
    };
    let messages = bodies::Messages {
        message_ids: vec![MESSAGE_ID],
    };
    named([
        ("upTo", value(&bodies::MarkRead::UpTo(up_to))),
        ("messages", value(&bodies::MarkRead::Messages(messages))),
    ])
}

fn revocations() -> Option<Value> {
    let session = bodies::RevokeSession {
        session_id: SESSION_ID,
    };
    let login = bodies::RevokeLogin {
        login_session_id: "login-7",
    };
    let user = bodies::RevokeUser {
        user_id: user("bob"),
        issued_before: Some(at()),
    };
    named([
        ("session", value(&bodies::Revoke::Session(session))),
        ("login", value(&bodies::Revoke::Login(login))),
        ("user", value(&bodies::Revoke::User(user))),
    ])
}
