use confab_protocol::ids::ConversationId;
use confab_protocol::json::JsonText;
use uuid::Uuid;

use super::*;
use crate::testing::{backend, caller, key, locked, refusal};

fn begin_with(r#type: ConversationType, admin: bool, users: &[&str]) -> Result<Beginning, Code> {
    let caller = Caller {
        tenant: "t".parse().unwrap(),
        user: "me".parse().unwrap(),
        admin,
    };
    let create = CreateConversation {
        conversation: ConversationId(Uuid::now_v7()),
        key: "k".into(),
        request_hash: [0; 32],
        r#type,
        participants: users.iter().map(|user| user.parse().unwrap()).collect(),
        metadata: JsonText::empty_object(),
    };
    begin(&caller, &create).map_err(|failure| failure.code)
}

fn names(beginning: &Beginning) -> Vec<(&str, Role)> {
    beginning
        .members
        .iter()
        .map(|member| (member.user_id.as_str(), member.role))
        .collect()
}

#[test]
fn the_caller_is_a_member_and_admin_listed_or_not() {
    for users in [&["b"][..], &["b", "me"]] {
        let beginning = begin_with(ConversationType::Group, false, users).unwrap();
        assert_eq!(
            names(&beginning),
            [("me", Role::Admin), ("b", Role::Member)]
        );
    }
    let beginning = begin_with(ConversationType::Group, true, &["a", "b"]).unwrap();
    assert_eq!(names(&beginning), [("a", Role::Admin), ("b", Role::Member)]);
}

#[test]
fn a_direct_conversation_has_its_two_members_listed() {
    let beginning = begin_with(ConversationType::Direct, false, &["me", "b"]).unwrap();
    assert_eq!(names(&beginning), [("me", Role::Admin), ("b", Role::Admin)]);
    assert_eq!(beginning.pair.unwrap().0.as_str(), "b");
    for users in [&["me"][..], &["a", "b"], &["me", "a", "b"]] {
        assert_eq!(
            begin_with(ConversationType::Direct, false, users),
            Err(Code::InvalidDirectConversation)
        );
    }
    assert!(begin_with(ConversationType::Direct, true, &["a", "b"]).is_ok());
}

#[test]
fn a_group_has_room_for_a_thousand() {
    let users: Vec<_> = (0..1000).map(|n| format!("u{n}")).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    assert_eq!(
        begin_with(ConversationType::Group, false, &users),
        Err(Code::ConversationFull)
    );
    assert!(begin_with(ConversationType::Group, true, &users).is_ok());
    assert!(begin_with(ConversationType::Channel, false, &users).is_ok());
}

fn patch(patch: &str, expected_version: Option<u64>) -> UpdateConversation {
    UpdateConversation {
        conversation: ConversationId(Uuid::nil()),
        patch: JsonText::trusted(patch.into()),
        expected_version,
        client_id: key(),
    }
}

fn described(metadata: &str) -> Described {
    Described {
        metadata: JsonText::trusted(metadata.into()),
        version: 7,
    }
}

#[test]
fn patch_is_merged_and_counts_where_something_differs() {
    let before = described(r#"{"name":"a","custom":{"keep":{"x": 1.0},"drop":1}}"#);
    let change = patch(r#"{"name":null,"custom":{"drop":null,"new":[1]}}"#, Some(7));
    let append = update(&caller("a"), &locked(Some(Role::Admin)), &change, &before);
    let append = append.unwrap().unwrap();
    let merged = r#"{"custom":{"keep":{"x": 1.0},"new":[1]}}"#;
    let metadata = JsonText::trusted(merged.into());
    assert_eq!(append.changes, [Change::SetMetadata(metadata, 8)]);
    assert_eq!(
        append.events[0].payload,
        format!(r#"{{"metadata":{merged},"version":8}}"#)
    );

    for same in [
        "{}",
        r#"{"name":"\u0061"}"#,
        r#"{"custom":{"keep":{"x":1}},"avatar":null}"#,
    ] {
        let nothing = update(&backend(), &locked(None), &patch(same, None), &before);
        assert_eq!(nothing.unwrap(), None, "{same}");
    }
}

#[test]
fn a_patch_of_another_version_is_told_the_present_one() {
    let refused = update(
        &caller("a"),
        &locked(Some(Role::Admin)),
        &patch("{}", Some(6)),
        &described("{}"),
    );
    match refused.unwrap_err() {
        CommandError::Refused(failure) => {
            assert_eq!(failure.code, Code::VersionConflict);
            assert_eq!(failure.extension.current_version, Some(7));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_patch_makes_of_custom_is_bounded() {
    let half = "x".repeat(limits::MAX_CUSTOM_BYTES / 2);
    let before = described(&format!(r#"{{"custom":{{"a":"{half}"}}}}"#));
    let admin = locked(Some(Role::Admin));
    let change = patch(&format!(r#"{{"custom":{{"b":"{half}"}}}}"#), None);
    match update(&caller("a"), &admin, &change, &before).unwrap_err() {
        CommandError::Refused(failure) => {
            assert_eq!(failure.code, Code::Validation);
            assert_eq!(failure.extension.errors[0].pointer, "/metadata/custom");
        }
        other => panic!("{other}"),
    }
    let instead = patch(&format!(r#"{{"custom":{{"a":null,"b":"{half}"}}}}"#), None);
    assert!(update(&caller("a"), &admin, &instead, &before).is_ok());
}

#[test]
fn only_admins_change_or_delete_a_conversation() {
    let nothing = patch("{}", None);
    for (who, role, refused) in [
        ("a", Some(Role::Member), Code::InsufficientPermissions),
        ("x", None, Code::ConversationNotFound),
    ] {
        let locked = locked(role);
        let updated = update(&caller(who), &locked, &nothing, &described("{}"));
        assert_eq!(refusal(updated), refused);
        assert_eq!(refusal(delete(&caller(who), &locked)), refused);
    }
    let gone = Locked {
        deleted_at: Some(locked(None).now),
        ..locked(None)
    };
    let updated = update(&backend(), &gone, &nothing, &described("{}"));
    assert_eq!(refusal(updated), Code::ConversationDeleted);
    let append = delete(&caller("a"), &locked(Some(Role::Admin))).unwrap();
    assert_eq!(append.changes, [Change::Delete]);
    assert_eq!(
        append.events[0].payload,
        r#"{"deletedAt":"2026-11-23T10:20:30.123Z"}"#
    );
}
