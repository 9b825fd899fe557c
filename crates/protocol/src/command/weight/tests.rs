use proptest::prelude::*;
use serde::Serialize;
use uuid::Uuid;

use crate::command::{
    AddParticipants, Caller, CreateConversation, Created, DeleteConversation, DeleteMessage,
    EditMessage, Outcome, ReadMark, RemoveParticipant, Revoke, SendMessage, Sent,
    UpdateConversation, UpdateParticipant,
};
use crate::error::{Code, Extension, Failure};
use crate::event::{EventType, LogEntry, Member};
use crate::ids::{ClientId, ConversationId, EventId, Seq};
use crate::json::JsonText;
use crate::resource::{Conversation, ConversationType, Participant, Role};
use crate::revocation::Revocation;
use crate::timestamp::Timestamp;
use crate::wire::encode;

use super::*;

fn user(n: usize) -> UserId {
    format!("{n:0>4}{}", "𝔘".repeat(124)).parse().unwrap()
}

fn request(command: Command) -> Request {
    Request {
        request_id: "r".repeat(128),
        traceparent: Some("t".repeat(128)),
        caller: Caller {
            tenant: "t".repeat(64).parse().unwrap(),
            user: user(0),
            admin: false,
        },
        event: Some(EventId(Uuid::max())),
        command,
    }
}

#[test]
fn command_never_exceeds_weight_for_any_user_name() {
    let conversation = ConversationId(Uuid::max());
    let client_id = ClientId(Uuid::max());
    let member = |n| Member {
        user_id: user(n),
        role: Role::Member,
    };
    let commands = [
        Command::CreateConversation(CreateConversation {
            conversation,
            key: "k".repeat(255),
            request_hash: [255; 32],
            r#type: ConversationType::Group,
            participants: (0..1000).map(user).collect(),
            metadata: JsonText::empty_object(),
        }),
        Command::AddParticipants(AddParticipants {
            conversation,
            participants: (0..1000).map(member).collect(),
            client_id,
        }),
        Command::RemoveParticipant(RemoveParticipant {
            conversation,
            user: user(1),
            client_id,
        }),
        Command::SendMessage(SendMessage {
            conversation,
            message: EventId(Uuid::nil()),
            client_id,
            payload: JsonText::empty_object(),
            reply_to: Some(EventId(Uuid::max())),
            answer: SendAnswer::Message,
        }),
        Command::MarkRead(MarkRead::UpTo {
            conversation,
            seq: Seq::MAX,
        }),
    ];
    for command in commands {
        let request = request(command);
        let name = request.command.name();
        let weight = request.weight();
        assert!(weight <= limits::MAX_RPC_BYTES, "{name}: {weight}");
        let bytes = encode(&request).unwrap().len();
        assert!(bytes <= weight, "{name}: {bytes} are more than {weight}");
    }
}

#[test]
fn no_answer_takes_more_than_its_commands_weight() {
    let (conversation, id) = (ConversationId(Uuid::max()), EventId(Uuid::max()));
    let at = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
    let participant = |n| Participant {
        user_id: user(n),
        role: Role::Member,
        joined_at: at,
        left_at: Some(at),
        last_read_seq: Seq::MAX,
    };
    let mark = ReadMark {
        conversation,
        up_to: Seq::MAX,
        moved: true,
        members: u64::MAX,
    };
    let message = format!(
        r#"{{"id":"{id}","conversationId":"{conversation}","seq":{},"sender":"{}","clientId":"{id}","kind":"text","content":1,"payloadSizeBytes":null,"replyTo":"{id}","metadata":{{}},"createdAt":"{at}","editedAt":"{at}","deletedAt":"{at}","version":1}}"#,
        Seq::MAX,
        user(0)
    );
    let pairs = [
        (
            Command::AddParticipants(AddParticipants {
                conversation,
                participants: (0..1000)
                    .map(|n| Member {
                        user_id: user(n),
                        role: Role::Member,
                    })
                    .collect(),
                client_id: ClientId(id.0),
            }),
            Outcome::Added {
                participants: (0..1000).map(participant).collect(),
                replayed: true,
            },
        ),
        (
            Command::MarkRead(MarkRead::Messages(vec![id; 100])),
            Outcome::Read(vec![mark; 100]),
        ),
        (
            Command::SendMessage(SendMessage {
                conversation,
                message: EventId(Uuid::nil()),
                client_id: ClientId(id.0),
                payload: JsonText::trusted(r#"{"kind":"text","content":1}"#.into()),
                reply_to: None,
                answer: SendAnswer::Message,
            }),
            Outcome::Sent(Sent {
                conversation,
                message_id: id,
                seq: Seq::MAX,
                created_at: at,
                duplicate: false,
                message: Some(JsonText::trusted(message)),
            }),
        ),
    ];
    for (command, outcome) in pairs {
        let name = command.name();
        let mut request = request(command);
        request.request_id = "r".into();
        request.traceparent = None;
        request.caller.tenant = "t".parse().unwrap();
        let (weight, bytes) = (request.weight(), encode(&outcome).unwrap().len());
        assert!(bytes <= weight, "{name}: {bytes} are more than {weight}");
    }
}

const SAMPLE_ID: Uuid = Uuid::max();

fn late() -> Timestamp {
    Timestamp::new(time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 8000))
}

/// Returns what takes most room escaped, and what takes most as it is.
fn users() -> impl Strategy<Value = UserId> {
    prop::collection::vec(
        prop::sample::select(vec!['"', '\\', '𝔘', 'a', ' ']),
        1..=128,
    )
    .prop_map(|chars| chars.into_iter().collect::<String>().parse().unwrap())
}

/// JSON texts of objects, with what is escaped in two bytes and in six.
fn objects(bytes: usize) -> impl Strategy<Value = JsonText> {
    let text = prop::collection::vec(
        prop::sample::select(vec!['"', '\\', '\u{1}', '𝔘']),
        0..bytes / 6,
    );
    text.prop_map(|chars| {
        let text: String = chars.into_iter().collect();
        JsonText::of(&serde_json::json!({ "k": text })).unwrap()
    })
}

fn participant(user_id: &UserId) -> Participant {
    Participant {
        user_id: user_id.clone(),
        role: Role::Member,
        joined_at: late(),
        left_at: Some(late()),
        last_read_seq: Seq::MAX,
    }
}

fn conversation(creator: &UserId, metadata: &JsonText) -> Conversation {
    Conversation {
        id: ConversationId(SAMPLE_ID),
        r#type: ConversationType::Channel,
        metadata: metadata.clone(),
        version: u64::MAX,
        created_by: creator.clone(),
        created_at: late(),
        updated_at: late(),
        deleted_at: Some(late()),
        last_seq: Seq::MAX,
        last_event_at: late(),
        role: Some(Role::Member),
        joined_at: Some(late()),
        last_read_seq: Some(Seq::MAX),
        unread_count: Some(u64::MAX),
        last_message: None,
        members: None,
        member_count: None,
    }
}

/// A creation's first answer, as a worker makes it.
fn created(caller: &UserId, users: &[UserId], metadata: &JsonText) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        conversation: Conversation,
        participants: Vec<Participant>,
        participants_next_cursor: String,
    }
    let named = users.iter().chain([caller]);
    let shown = named
        .take(limits::PARTICIPANTS_SHOWN)
        .map(|user| Participant {
            left_at: None,
            last_read_seq: 1,
            ..participant(user)
        });
    let body = Body {
        conversation: conversation(caller, metadata),
        participants: shown.collect(),
        participants_next_cursor: "c".repeat(64),
    };
    Outcome::Created(Created {
        conversation: ConversationId(SAMPLE_ID),
        body: JsonText::of(&body).unwrap(),
        replayed: true,
    })
}

fn sent(sender: &UserId, payload: &str) -> Outcome {
    let entry = LogEntry {
        conversation: ConversationId(SAMPLE_ID),
        seq: Seq::MAX,
        id: EventId(SAMPLE_ID),
        event_type: EventType::MessageCreated,
        actor: sender,
        client_id: Some(ClientId(SAMPLE_ID)),
        created_at: late(),
        edited_at: Some(late()),
        deleted_at: Some(late()),
        version: u64::MAX,
        payload,
        target_seq: None,
        target: None,
    };
    Outcome::Sent(Sent {
        message_id: EventId(SAMPLE_ID),
        conversation: ConversationId(SAMPLE_ID),
        seq: Seq::MAX,
        created_at: late(),
        duplicate: true,
        message: Some(JsonText::trusted(entry.encode_message())),
    })
}

/// Every command on these, with what it may be answered at most.
#[expect(clippy::too_many_lines, reason = "a table: an entry for each command")]
fn commands(
    caller: &UserId,
    users: &[UserId],
    json: &JsonText,
    whole: &JsonText,
) -> Vec<(Command, Outcome)> {
    let (conversation_id, client_id, id) = (
        ConversationId(SAMPLE_ID),
        ClientId(SAMPLE_ID),
        EventId(SAMPLE_ID),
    );
    let other = &users[0];
    let members = users.iter().map(|user_id| Member {
        user_id: user_id.clone(),
        role: Role::Member,
    });
    let kind = format!("x-{}", "k".repeat(62));
    let text = format!(
        r#"{{"kind":"{kind}","content":{0},"replyTo":"{SAMPLE_ID}","metadata":{0}}}"#,
        json.as_str()
    );
    let kept = limits::MESSAGE_METADATA - 8;
    let edited = format!(
        r#"{{"kind":"{kind}","content":{},"replyTo":"{SAMPLE_ID}","metadata":{{"k":"{}"}}}}"#,
        json.as_str(),
        "x".repeat(kept)
    );
    let deleted = format!(r#"{{"kind":"{kind}","replyTo":"{SAMPLE_ID}","metadata":{{}}}}"#);
    let mark = ReadMark {
        conversation: conversation_id,
        up_to: Seq::MAX,
        moved: true,
        members: u64::MAX,
    };
    let targets = [
        RevocationTarget::Session {
            session: crate::ids::SessionId(SAMPLE_ID),
            user: Some(other.clone()),
        },
        RevocationTarget::Login(other.as_str().to_owned()),
        RevocationTarget::User {
            user: other.clone(),
            issued_before: Some(late()),
        },
    ];
    let revocation = |target: RevocationTarget| {
        let command = Command::Revoke(Revoke {
            target: target.clone(),
            key: Some(ClientId(SAMPLE_ID)),
        });
        let revoked = Revocation {
            revision: u64::MAX,
            tenant: "t".repeat(64).parse().unwrap(),
            target,
            created_at: late(),
            expires_at: late(),
        };
        (command, Outcome::Revoked(revoked))
    };
    let mut all = vec![
        (
            Command::CreateConversation(CreateConversation {
                conversation: conversation_id,
                key: "k".repeat(limits::IDEMPOTENCY_KEY),
                request_hash: [255; 32],
                r#type: ConversationType::Channel,
                participants: users.to_vec(),
                metadata: json.clone(),
            }),
            created(caller, users, json),
        ),
        (
            Command::UpdateConversation(UpdateConversation {
                conversation: conversation_id,
                patch: json.clone(),
                expected_version: Some(u64::MAX),
                client_id,
            }),
            Outcome::Updated {
                conversation: JsonText::of(
                    &serde_json::json!({ "conversation": conversation(other, whole) }),
                )
                .unwrap(),
                replayed: true,
            },
        ),
        (
            Command::DeleteConversation(DeleteConversation {
                conversation: conversation_id,
                client_id,
            }),
            Outcome::Deleted {
                deleted_at: late(),
                replayed: true,
            },
        ),
        (
            Command::AddParticipants(AddParticipants {
                conversation: conversation_id,
                participants: members.collect(),
                client_id,
            }),
            Outcome::Added {
                participants: users.iter().map(participant).collect(),
                replayed: true,
            },
        ),
        (
            Command::UpdateParticipant(UpdateParticipant {
                conversation: conversation_id,
                user: other.clone(),
                role: Role::Member,
                client_id,
            }),
            Outcome::RoleChanged {
                participant: participant(other),
                replayed: true,
            },
        ),
        (
            Command::RemoveParticipant(RemoveParticipant {
                conversation: conversation_id,
                user: other.clone(),
                client_id,
            }),
            Outcome::Removed {
                participant: participant(other),
                conversation_deleted_at: Some(late()),
                replayed: true,
            },
        ),
        (
            Command::SendMessage(SendMessage {
                conversation: conversation_id,
                message: id,
                client_id,
                payload: JsonText::trusted(text.clone()),
                reply_to: Some(id),
                answer: SendAnswer::Message,
            }),
            sent(caller, &text),
        ),
        (
            Command::EditMessage(EditMessage {
                conversation: Some(conversation_id),
                message: id,
                content: Some(json.clone()),
                metadata: Some(json.clone()),
                expected_version: Some(u64::MAX),
                client_id,
                answer: SendAnswer::Message,
            }),
            sent(other, &edited),
        ),
        (
            Command::DeleteMessage(DeleteMessage {
                conversation: Some(conversation_id),
                message: id,
                expected_version: Some(u64::MAX),
                client_id,
                answer: SendAnswer::Message,
            }),
            sent(other, &deleted),
        ),
        (
            Command::MarkRead(MarkRead::UpTo {
                conversation: conversation_id,
                seq: Seq::MAX,
            }),
            Outcome::Read(vec![mark]),
        ),
        (
            Command::MarkRead(MarkRead::Messages(vec![id; limits::READ_MESSAGES])),
            Outcome::Read(vec![mark; limits::READ_MESSAGES]),
        ),
    ];
    all.extend(targets.map(revocation));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn weight_bounds_request_and_outcome_however_escaped(
        caller in users(),
        users in prop::collection::vec(users(), 1..120),
        json in objects(16 * 1024),
        custom in objects(limits::MAX_CUSTOM_BYTES - 64),
    ) {
        // Every character of the other fields takes the six bytes that one takes at most.
        let whole = format!(
            r#"{{"name":"{}","description":"{}","avatar":"{}","custom":{}}}"#,
            "\\u0001".repeat(limits::NAME_CHARS),
            "\\u0001".repeat(limits::DESCRIPTION_CHARS),
            "\\u0001".repeat(limits::AVATAR_CHARS),
            custom.as_str()
        );
        for (command, outcome) in commands(&caller, &users, &json, &JsonText::trusted(whole)) {
            let mut request = request(command);
            request.caller.user = caller.clone();
            let (weight, name) = (request.weight(), request.command.name());
            let bytes = encode(&request).unwrap().len();
            prop_assert!(bytes <= weight, "{}: {} are more than {}", name, bytes, weight);
            // An answer has nothing of what is told of the request alone.
            request.request_id = String::new();
            request.traceparent = None;
            request.caller.tenant = "t".parse().unwrap();
            let weight = request.weight();
            let bytes = encode(&(0, Ok::<_, Failure>(outcome))).unwrap().len();
            prop_assert!(bytes <= weight, "{}: an answer of {} is more than {}", name, bytes, weight);
            let refusal = Failure::of(Code::TooManyConversations).with(Extension {
                user_ids: match &request.command {
                    Command::AddParticipants(_) | Command::CreateConversation(_) => users.clone(),
                    _ => vec![users[0].clone()],
                },
                ..Extension::default()
            });
            let bytes = encode(&(0, Err::<Outcome, _>(refusal.retry_after(u64::MAX)))).unwrap().len();
            let names = matches!(request.command, Command::AddParticipants(_) | Command::CreateConversation(_));
            prop_assert!(!names || bytes <= weight, "{}: a refusal of {} is more than {}", name, bytes, weight);
        }
    }
}
