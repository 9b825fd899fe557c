use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::limits;
use confab_protocol::resource::Role;

use uuid::Uuid;

use super::*;
use crate::testing::{backend, caller, locked, refusal};

fn stored(sender: &str) -> StoredMessage {
    let sender: UserId = sender.parse().unwrap();
    StoredMessage {
        seq: 3,
        id: EventId(Uuid::from_u128(3)),
        sender,
        client_id: None,
        created_at: "2026-11-23T10:20:00.000Z".parse().unwrap(),
        edited_at: None,
        deleted_at: None,
        version: 4,
        payload: r#"{"kind":"text","content":{"a":  1.0},"payloadSizeBytes":null,"replyTo":null,"metadata":{"m": 1}}"#
            .to_owned(),
    }
}

fn deleted(sender: &str) -> StoredMessage {
    StoredMessage {
        deleted_at: Some(locked(None).now),
        ..stored(sender)
    }
}

fn content(json: &str) -> JsonText {
    JsonText::trusted(json.to_owned())
}

/// Replaces the content.
fn edit(
    caller: &Caller,
    locked: &Locked,
    message: Option<StoredMessage>,
    content: &JsonText,
) -> Result<Option<decision::Append>, CommandError> {
    let edit = Edit {
        content: Some(content),
        metadata: None,
    };
    super::edit(caller, locked, message, edit, None)
}

/// Deletes whatever version stands.
fn delete(
    caller: &Caller,
    locked: &Locked,
    message: Option<StoredMessage>,
) -> Result<Option<decision::Append>, CommandError> {
    super::delete(caller, locked, message, None)
}

/// Changes the metadata alone.
fn patched(patch: &str) -> Result<Option<decision::Append>, CommandError> {
    let patch = content(patch);
    let edit = Edit {
        content: None,
        metadata: Some(&patch),
    };
    let member = locked(Some(Role::Member));
    super::edit(&caller("a"), &member, Some(stored("a")), edit, None)
}

fn rewritten(append: decision::Append) -> StoredMessage {
    assert!(append.changes.is_empty());
    let [event] = <[NewEvent; 1]>::try_from(append.events).unwrap();
    event.rewrites.unwrap()
}

#[test]
fn an_edit_replaces_the_content_and_nothing_else() {
    let member = locked(Some(Role::Member));
    let new = content(r#"{"content":{"b":  2.0},"payloadSizeBytes":null}"#);
    let append = edit(&caller("a"), &member, Some(stored("a")), &new);
    let append = append.unwrap().unwrap();
    assert_eq!(append.events[0].payload, "{}");
    assert_eq!(
        rewritten(append),
        StoredMessage {
            edited_at: Some(member.now),
            version: 5,
            payload: r#"{"kind":"text","content":{"b":  2.0},"payloadSizeBytes":null,"replyTo":null,"metadata":{"m": 1}}"#
                .to_owned(),
            ..stored("a")
        }
    );

    let encrypted = content(r#"{"encryptedContent":"AAEC","payloadSizeBytes":3}"#);
    let append = edit(&caller("a"), &member, Some(stored("a")), &encrypted);
    let sealed = rewritten(append.unwrap().unwrap());
    let opened = edit(&caller("a"), &member, Some(sealed.clone()), &new);
    assert_eq!(refusal(opened), Code::Validation);
    assert!(edit(&caller("a"), &member, Some(sealed.clone()), &encrypted).is_ok());
    assert_eq!(
        sealed.payload,
        r#"{"kind":"text","encryptedContent":"AAEC","payloadSizeBytes":3,"replyTo":null,"metadata":{"m": 1}}"#
    );
}

#[test]
fn only_its_sender_edits_a_message_and_in_a_channel_only_an_admin() {
    let new = content(r#"{"content":1,"payloadSizeBytes":null}"#);
    let edit = |caller: &Caller, locked: &Locked, message: StoredMessage| {
        edit(caller, locked, Some(message), &new)
    };
    let (member, admin) = (locked(Some(Role::Member)), locked(Some(Role::Admin)));
    for other in [
        edit(&caller("b"), &admin, stored("a")),
        edit(&backend(), &locked(None), stored("a")),
    ] {
        assert_eq!(refusal(other), Code::InsufficientPermissions);
    }
    assert!(edit(&backend(), &locked(None), stored("backend")).is_ok());
    let former = edit(&caller("a"), &locked(None), stored("a"));
    assert_eq!(refusal(former), Code::ConversationNotFound);
    let channel = |locked: Locked| Locked {
        r#type: ConversationType::Channel,
        ..locked
    };
    let demoted = edit(&caller("a"), &channel(member), stored("a"));
    assert_eq!(refusal(demoted), Code::InsufficientPermissions);
    assert!(edit(&caller("a"), &channel(admin), stored("a")).is_ok());
}

#[test]
fn what_is_deleted_or_never_was_is_not_edited() {
    let member = locked(Some(Role::Member));
    let new = content(r#"{"content":1,"payloadSizeBytes":null}"#);
    for message in [None, Some(deleted("a"))] {
        let edited = edit(&caller("a"), &member, message, &new);
        assert_eq!(refusal(edited), Code::MessageNotFound);
    }
}

#[test]
fn an_edit_fits_an_event() {
    let member = locked(Some(Role::Member));
    let long = "x".repeat(limits::MAX_EVENT_BYTES);
    let new = content(&format!(
        r#"{{"content":"{long}","payloadSizeBytes":null}}"#
    ));
    let edited = edit(&caller("a"), &member, Some(stored("a")), &new);
    assert_eq!(refusal(edited), Code::PayloadTooLarge);
}

#[test]
fn a_deletion_leaves_nothing_of_what_was_sent() {
    let member = locked(Some(Role::Member));
    let append = delete(&caller("a"), &member, Some(stored("a")))
        .unwrap()
        .unwrap();
    assert_eq!(
        append.events[0].payload,
        r#"{"targetSeq":3,"messageId":"00000000-0000-0000-0000-000000000003","deletedAt":"2026-11-23T10:20:30.123Z"}"#
    );
    let message = rewritten(append);
    assert_eq!(
        message.payload,
        r#"{"kind":"text","payloadSizeBytes":null,"replyTo":null,"metadata":{}}"#
    );
    assert_eq!((message.deleted_at, message.version), (Some(member.now), 5));
    let entry = message.entry(ConversationId(Uuid::nil()));
    assert!(!entry.encode_message().contains("content"));
    assert_eq!(
        delete(&caller("a"), &member, Some(deleted("a"))).unwrap(),
        None
    );
}

#[test]
fn a_message_is_deleted_by_its_sender_or_an_admin() {
    let (member, admin) = (locked(Some(Role::Member)), locked(Some(Role::Admin)));
    assert!(delete(&caller("b"), &admin, Some(stored("a"))).is_ok());
    assert!(delete(&backend(), &locked(None), Some(stored("a"))).is_ok());
    for message in [stored("a"), deleted("a")] {
        let others = delete(&caller("b"), &member, Some(message));
        assert_eq!(refusal(others), Code::InsufficientPermissions);
    }
    assert_eq!(
        refusal(delete(&caller("b"), &admin, None)),
        Code::MessageNotFound
    );
    // Both are admins of it.
    let direct = Locked {
        r#type: ConversationType::Direct,
        ..admin
    };
    let others = delete(&caller("b"), &direct, Some(stored("a")));
    assert_eq!(refusal(others), Code::InsufficientPermissions);
    assert!(delete(&caller("a"), &direct, Some(stored("a"))).is_ok());
    assert!(delete(&backend(), &direct, Some(stored("a"))).is_ok());
    let stranger = delete(&caller("x"), &locked(None), Some(stored("a")));
    assert_eq!(refusal(stranger), Code::ConversationNotFound);
}

#[test]
fn edit_of_metadata_is_a_merge_patch() {
    let append = patched(r#"{"n":{"a":  1},"m":null}"#).unwrap().unwrap();
    assert_eq!(
        rewritten(append).payload,
        r#"{"kind":"text","content":{"a":  1.0},"payloadSizeBytes":null,"replyTo":null,"metadata":{"n":{"a":1}}}"#
    );
    let long = format!(r#"{{"n":"{}"}}"#, "x".repeat(limits::MESSAGE_METADATA - 10));
    assert_eq!(refusal(patched(&long)), Code::Validation);
}

#[test]
fn edit_that_changes_nothing_appends_nothing() {
    let member = locked(Some(Role::Member));
    let same = content(r#"{"content":{"\u0061":1},"payloadSizeBytes":null}"#);
    let append = edit(&caller("a"), &member, Some(stored("a")), &same);
    assert_eq!(append.unwrap(), None);
    for patch in ["{}", r#"{"m":1.0}"#, r#"{"absent":null}"#] {
        assert_eq!(patched(patch).unwrap(), None, "{patch}");
    }
}

#[test]
fn change_of_another_version_is_refused() {
    let member = locked(Some(Role::Member));
    let new = content(r#"{"content":1,"payloadSizeBytes":null}"#);
    let edit = Edit {
        content: Some(&new),
        metadata: None,
    };
    let by = caller("a");
    let edited = |version| super::edit(&by, &member, Some(stored("a")), edit, Some(version));
    let deleted_at = |version, message| super::delete(&by, &member, Some(message), Some(version));
    for refused in [edited(3), edited(5), deleted_at(3, stored("a"))] {
        match refused.unwrap_err() {
            CommandError::Refused(failure) => {
                assert_eq!(failure.code, Code::PreconditionFailed);
                assert_eq!(failure.extension.current_version, Some(4));
            }
            other => panic!("{other}"),
        }
    }
    assert!(edited(4).unwrap().is_some());
    assert!(deleted_at(4, stored("a")).unwrap().is_some());
    // What is asked for stands.
    assert_eq!(deleted_at(3, deleted("a")).unwrap(), None);
}

#[test]
fn encrypted_message_stays_encrypted() {
    let member = locked(Some(Role::Member));
    let encrypted = StoredMessage {
        payload: r#"{"kind":"text","encryptedContent":"AAEC","payloadSizeBytes":3,"replyTo":null,"metadata":{}}"#
            .to_owned(),
        ..stored("a")
    };
    let clear = content(r#"{"content":1,"payloadSizeBytes":null}"#);
    let edited = edit(&caller("a"), &member, Some(encrypted.clone()), &clear);
    assert_eq!(refusal(edited), Code::Validation);
    let other = content(r#"{"encryptedContent":"AAED","payloadSizeBytes":3}"#);
    let edited = edit(&caller("a"), &member, Some(encrypted), &other);
    assert!(edited.unwrap().is_some());
}
