use confab_protocol::ids::{ConversationId, UserId};
use uuid::Uuid;

use super::*;
use crate::testing::{backend, caller, key, locked, refusal};

mod admins;

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

fn members(names: &[&str]) -> Vec<Member> {
    names
        .iter()
        .map(|name| Member {
            user_id: user(name),
            role: Role::Member,
        })
        .collect()
}

/// Beside an admin, these of the named.
fn there(names: &[&str]) -> Present {
    Present {
        named: names.iter().map(|name| user(name)).collect(),
        has_admin: true,
    }
}

#[test]
fn only_admins_add_and_strangers_learn_nothing() {
    let new = members(&["n"]);
    assert!(add(&caller("a"), &locked(Some(Role::Admin)), &new, there(&[])).is_ok());
    assert_eq!(
        refusal(add(
            &caller("a"),
            &locked(Some(Role::Member)),
            &new,
            there(&[])
        )),
        Code::InsufficientPermissions
    );
    assert_eq!(
        refusal(add(&caller("a"), &locked(None), &new, there(&[]))),
        Code::ConversationNotFound
    );
    assert!(add(&backend(), &locked(None), &new, there(&[])).is_ok());
    let deleted = Locked {
        deleted_at: Some(locked(None).now),
        was_member: true,
        ..locked(None)
    };
    assert_eq!(
        refusal(add(&caller("a"), &deleted, &new, there(&[]))),
        Code::ConversationDeleted
    );
    assert_eq!(
        refusal(add(
            &caller("x"),
            &Locked {
                was_member: false,
                ..deleted
            },
            &new,
            there(&[])
        )),
        Code::ConversationNotFound
    );
}

#[test]
fn additions_are_all_or_none() {
    let admin = locked(Some(Role::Admin));
    assert_eq!(
        refusal(add(
            &caller("a"),
            &admin,
            &members(&["b", "n"]),
            there(&["b"])
        )),
        Code::AlreadyParticipant
    );
    let full = Locked {
        members: limits::GROUP_MEMBERS - 1,
        ..admin
    };
    assert!(add(&caller("a"), &full, &members(&["n"]), there(&[])).is_ok());
    assert_eq!(
        refusal(add(&caller("a"), &full, &members(&["n", "m"]), there(&[]))),
        Code::ConversationFull
    );
    let direct = Locked {
        r#type: ConversationType::Direct,
        ..admin
    };
    assert_eq!(
        refusal(add(&caller("a"), &direct, &members(&["n"]), there(&[]))),
        Code::DirectConversationFixed
    );
}

#[test]
fn an_addition_is_not_larger_than_an_event_may_be() {
    let names: Vec<_> = (0..1000)
        .map(|n| format!("{n:03}{}", "🜁".repeat(125)))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let channel = Locked {
        r#type: ConversationType::Channel,
        ..locked(Some(Role::Admin))
    };
    let add = |count| {
        add(
            &caller("a"),
            &channel,
            &members(&names[..count]),
            there(&[]),
        )
    };
    let event = add(950).unwrap().events.remove(0);
    assert!(event.payload.len() + crate::decision::ENVELOPE <= limits::MAX_EVENT_BYTES);
    assert_eq!(refusal(add(1000)), Code::PayloadTooLarge);
}

#[test]
fn a_last_admin_hands_over_and_the_last_member_takes_the_conversation_along() {
    let admin = locked(Some(Role::Admin));
    let stays = Standing {
        role: Some(Role::Admin),
        other_admins: 0,
        longest: Some(user("b")),
    };
    let append = remove(&caller("a"), &admin, &user("a"), &stays).unwrap();
    assert_eq!(
        append.changes,
        [
            Change::Leave(user("a")),
            Change::SetRole(user("b"), Role::Admin)
        ]
    );
    let last = Standing {
        longest: None,
        ..stays
    };
    let append = remove(&caller("a"), &admin, &user("a"), &last).unwrap();
    assert_eq!(append.changes, [Change::Leave(user("a")), Change::Delete]);
    assert_eq!(append.events[1].event_type, EventType::ConversationDeleted);
    let other = Standing {
        other_admins: 1,
        ..stays
    };
    assert_eq!(
        remove(&caller("a"), &admin, &user("a"), &other)
            .unwrap()
            .changes
            .len(),
        1
    );
}

#[test]
fn oneself_may_leave_and_only_admins_remove_others() {
    let member = locked(Some(Role::Member));
    let leaving = Standing {
        role: Some(Role::Member),
        other_admins: 1,
        longest: Some(user("b")),
    };
    assert!(remove(&caller("a"), &member, &user("a"), &leaving).is_ok());
    assert_eq!(
        refusal(remove(&caller("a"), &member, &user("b"), &leaving)),
        Code::InsufficientPermissions
    );
    let nobody = Standing {
        role: None,
        ..leaving
    };
    assert_eq!(
        refusal(remove(
            &caller("a"),
            &locked(Some(Role::Admin)),
            &user("x"),
            &nobody
        )),
        Code::ParticipantNotFound
    );
}

fn role_change(name: &str, role: Role) -> UpdateParticipant {
    UpdateParticipant {
        conversation: ConversationId(Uuid::nil()),
        user: user(name),
        role,
        client_id: key(),
    }
}

#[test]
fn a_last_admin_never_steps_down() {
    let admin = locked(Some(Role::Admin));
    let last = Standing {
        role: Some(Role::Admin),
        other_admins: 0,
        longest: Some(user("b")),
    };
    let down = role_change("a", Role::Member);
    assert_eq!(
        refusal(update(&caller("a"), &admin, &down, &last)),
        Code::LastAdmin
    );
    // Not even by the product's own backend.
    assert_eq!(
        refusal(update(&backend(), &locked(None), &down, &last)),
        Code::LastAdmin
    );
    let two = Standing {
        other_admins: 1,
        ..last.clone()
    };
    let append = update(&caller("a"), &admin, &down, &two);
    let append = append.unwrap().unwrap();
    assert_eq!(append.changes, [Change::SetRole(user("a"), Role::Member)]);
    assert_eq!(
        append.events[0].payload,
        r#"{"userId":"a","role":"member"}"#
    );
    // The same role again is no step.
    let same = role_change("a", Role::Admin);
    let nothing = update(&caller("a"), &admin, &same, &last);
    assert_eq!(nothing.unwrap(), None);
    let alone = Standing {
        longest: None,
        ..last
    };
    assert_eq!(
        refusal(update(&caller("a"), &admin, &down, &alone)),
        Code::LastAdmin
    );
}

#[test]
fn only_admins_change_roles_of_those_who_are_there() {
    let member = Standing {
        role: Some(Role::Member),
        other_admins: 1,
        longest: Some(user("a")),
    };
    let up = role_change("b", Role::Admin);
    let admin = locked(Some(Role::Admin));
    assert!(update(&caller("a"), &admin, &up, &member).is_ok());
    let plain = locked(Some(Role::Member));
    assert_eq!(
        refusal(update(&caller("b"), &plain, &up, &member)),
        Code::InsufficientPermissions
    );
    let stranger = refusal(update(&caller("x"), &locked(None), &up, &member));
    assert_eq!(stranger, Code::ConversationNotFound);
    let nobody = Standing {
        role: None,
        ..member.clone()
    };
    assert_eq!(
        refusal(update(&caller("a"), &admin, &up, &nobody)),
        Code::ParticipantNotFound
    );
    let direct = Locked {
        r#type: ConversationType::Direct,
        ..admin
    };
    assert_eq!(
        refusal(update(&caller("a"), &direct, &up, &member)),
        Code::DirectConversationFixed
    );
}
