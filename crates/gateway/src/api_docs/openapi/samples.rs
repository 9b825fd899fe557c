//! Resources as they might be, for examples.

use confab_protocol::event::{Event, EventType};
use confab_protocol::ids::{ClientId, ConversationId, EventId, SessionId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{
    Conversation, ConversationType, MemberPreview, Message, MessagePreview, Participant, Role,
    Session,
};
use confab_protocol::revocation::RevocationView;
use confab_protocol::timestamp::Timestamp;
use time::macros::datetime;
use uuid::uuid;

pub(crate) const CONVERSATION_ID: ConversationId =
    ConversationId(uuid!("01890a5d-ac96-774b-bcce-b302099a8057"));
pub(crate) const MESSAGE_ID: EventId = EventId(uuid!("01890a5d-ac96-774b-bcce-b302099a8058"));
pub(crate) const CLIENT_ID: ClientId = ClientId(uuid!("0190163d-8694-739b-aea5-966c26f8ad91"));
/// A resume token.
pub(crate) const RESUME_TOKEN: &str =
    "AYkKXayWd0u8zrMCCaCAWWJ1dCBub3QgYSByZWFsIHRva2VuLCBvZiBjb3Vyc2U";
pub(crate) const SESSION_ID: SessionId = SessionId(uuid!("01890a5d-ac96-774b-bcce-b302099a8059"));

/// The user of this name.
#[expect(
    clippy::expect_used,
    reason = "names of ours, all of them used by a test"
)]
pub(crate) fn user(name: &str) -> UserId {
    name.parse().expect("a name")
}

pub(crate) fn at() -> Timestamp {
    Timestamp::new(datetime!(2026-11-23 10:20:30.123 UTC))
}

pub(crate) fn later() -> Timestamp {
    Timestamp::new(datetime!(2026-11-23 11:00:00 UTC))
}

pub(crate) fn conversation() -> Conversation {
    Conversation {
        id: CONVERSATION_ID,
        r#type: ConversationType::Group,
        metadata: JsonText::trusted(r#"{"name":"Weekend"}"#.to_owned()),
        version: 1,
        created_by: user("alice"),
        created_at: at(),
        updated_at: at(),
        deleted_at: None,
        last_seq: 2,
        last_event_at: at(),
        role: Some(Role::Admin),
        joined_at: Some(at()),
        last_read_seq: Some(1),
        unread_count: Some(1),
        last_message: None,
        members: None,
        member_count: None,
    }
}

fn member_preview(name: &str, role: Role) -> MemberPreview {
    MemberPreview {
        user_id: user(name),
        role,
    }
}

/// A conversation as a list shows it.
pub(crate) fn listed() -> Conversation {
    Conversation {
        last_message: Some(MessagePreview {
            id: MESSAGE_ID,
            seq: 2,
            sender: user("bob"),
            kind: "text".to_owned(),
            content: Some(text()),
            created_at: at(),
            deleted_at: None,
        }),
        members: Some(vec![
            member_preview("alice", Role::Admin),
            member_preview("bob", Role::Member),
        ]),
        member_count: Some(2),
        ..conversation()
    }
}

pub(crate) fn participant(name: &str, role: Role) -> Participant {
    Participant {
        user_id: user(name),
        role,
        joined_at: at(),
        left_at: None,
        last_read_seq: 1,
    }
}

fn text() -> JsonText {
    JsonText::trusted(r#"{"text":"hello"}"#.to_owned())
}

pub(crate) fn message() -> Message {
    Message {
        id: MESSAGE_ID,
        conversation_id: CONVERSATION_ID,
        seq: 2,
        sender: user("bob"),
        client_id: Some(CLIENT_ID),
        kind: "text".to_owned(),
        content: Some(text()),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
        created_at: at(),
        edited_at: None,
        deleted_at: None,
        version: 1,
    }
}

/// What is left of a message that was deleted.
pub(crate) fn deleted() -> Message {
    Message {
        content: None,
        deleted_at: Some(later()),
        version: 2,
        ..message()
    }
}

/// The event of this type with this data.
pub(crate) fn event<T: serde::Serialize>(r#type: EventType, data: &T) -> Event {
    Event {
        r#type,
        conversation_id: CONVERSATION_ID,
        seq: 2,
        id: MESSAGE_ID,
        actor: user("bob"),
        created_at: at(),
        data: JsonText::of(data).unwrap_or_else(|_unprintable| JsonText::empty_object()),
    }
}

pub(crate) fn session() -> Session {
    Session {
        id: SESSION_ID,
        device_id: "phone".to_owned(),
        login_session_id: "login-7".to_owned(),
        since: at(),
        last_seen_at: later(),
    }
}

pub(crate) fn revocation() -> RevocationView {
    RevocationView {
        session_id: Some(SESSION_ID),
        login_session_id: None,
        user_id: Some(user("alice")),
        issued_before: None,
        created_at: at(),
        expires_at: Timestamp::new(datetime!(2027-11-24 10:20:30.123 UTC)),
    }
}
