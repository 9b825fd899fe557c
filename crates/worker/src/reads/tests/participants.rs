use std::collections::BTreeSet;

use confab_protocol::command::Caller;
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Answer, ListParticipants, Query};
use confab_protocol::resource::{ConversationType, Participant, Role};

use super::{ask, refused};
use crate::testing::{Fixture, addition, caller, creation, soak};

#[tokio::test]
async fn the_cursor_of_a_conversation_goes_on_in_its_participants() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..250).map(|n| format!("u{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let group = fixture.group(&names).await;
    let query = Query::GetConversation {
        caller: caller("u0"),
        conversation: group,
    };
    let Answer::Object(shown) = ask(&fixture, query).await else {
        panic!("an object");
    };
    let shown: serde_json::Value = serde_json::from_str(shown.as_str()).unwrap();
    assert_eq!(shown["participants"].as_array().unwrap().len(), 100);
    let mut query = list("u0", group);
    query.cursor = shown["participantsNextCursor"].as_str().map(str::to_owned);
    assert_eq!(users(&all(&fixture, query).await), names[100..]);
}

#[tokio::test]
async fn roles_and_those_who_left_are_listed_by_joining() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    fixture.remove("alice", "bob", group).await;
    for names in [&["dora", "bob"][..], &["erin"]] {
        let (added, _) = fixture.alone("alice", addition(group, names)).await;
        added.unwrap();
    }
    fixture.remove("alice", "carol", group).await;
    // The last admin hands over to the one that is there for longest.
    fixture.remove("alice", "alice", group).await;
    for limit in [1, 2, 3, 100] {
        let listed = async |include_left, role| {
            let query = ListParticipants {
                limit,
                include_left,
                role,
                ..list("erin", group)
            };
            users(&all(&fixture, query).await)
        };
        let ever = ["alice", "bob", "carol", "dora", "bob", "erin"];
        assert_eq!(listed(true, None).await, ever);
        assert_eq!(listed(false, None).await, ["dora", "bob", "erin"]);
        assert_eq!(listed(true, Some(Role::Admin)).await, ["alice", "dora"]);
        assert_eq!(listed(false, Some(Role::Admin)).await, ["dora"]);
        assert_eq!(listed(false, Some(Role::Member)).await, ["bob", "erin"]);
        let members = ["bob", "carol", "bob", "erin"];
        assert_eq!(listed(true, Some(Role::Member)).await, members);
    }
    let query = ListParticipants {
        include_left: true,
        ..list("erin", group)
    };
    let left: Vec<_> = all(&fixture, query).await;
    let left: Vec<_> = left.iter().map(|one| one.left_at.is_some()).collect();
    assert_eq!(left, [true, true, true, false, false, false]);
}

#[tokio::test]
async fn participants_are_for_members_and_cursors_are_checked() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.remove("alice", "bob", group).await;
    for user in ["bob", "mallory"] {
        let query = Query::ListParticipants(list(user, group));
        assert_eq!(refused(&fixture, query).await, Code::ConversationNotFound);
    }
    let product = ListParticipants {
        caller: Caller {
            admin: true,
            ..caller("backend")
        },
        ..list("alice", group)
    };
    assert_eq!(users(&all(&fixture, product).await), ["alice"]);
    for cursor in ["", "p", "m1", "p1", "r1-2"] {
        let query = ListParticipants {
            cursor: Some(cursor.to_owned()),
            ..list("alice", group)
        };
        let code = refused(&fixture, Query::ListParticipants(query)).await;
        assert_eq!(code, Code::InvalidCursor);
    }
    fixture.remove("alice", "alice", group).await;
    let query = Query::ListParticipants(list("bob", group));
    assert_eq!(refused(&fixture, query).await, Code::ConversationDeleted);
}

#[tokio::test]
async fn pages_of_the_longest_names_fit_and_add_up() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..1000)
        .map(|n| format!("{n:04}{}", "\"".repeat(124)))
        .chain((0..1000).map(|n| format!("{n:04}{}", "🜁".repeat(124))))
        .collect();
    let channel = channel(&fixture, &names).await;
    let query = ListParticipants {
        limit: 1000,
        ..list(&names[0], channel)
    };
    assert_eq!(users(&all(&fixture, query).await), names);
}

#[tokio::test]
async fn rare_roles_are_found_page_by_page() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..5000).map(|n| format!("u{n}")).collect();
    let channel = channel(&fixture, &names).await;
    sqlx::query("update participants set role = 'admin' where user_id in ('u3000', 'u4999')")
        .execute(&fixture.pool)
        .await
        .unwrap();
    for include_left in [false, true] {
        let query = ListParticipants {
            limit: 2,
            include_left,
            role: Some(Role::Admin),
            ..list("u0", channel)
        };
        let admins = all(&fixture, query).await;
        assert_eq!(users(&admins), ["u0", "u3000", "u4999"]);
    }
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_members_come_and_go() {
    let fixture = Fixture::new().await;
    let stay: Vec<_> = (0..40).map(|n| format!("stay{n}")).collect();
    let goes: Vec<_> = (0..40).map(|n| format!("goes{n}")).collect();
    let mixed = stay.iter().zip(&goes).flat_map(|(one, other)| [one, other]);
    let names: Vec<_> = mixed.map(String::as_str).collect();
    let group = fixture.group(&names).await;
    let changing = async {
        for name in &goes {
            fixture.remove(names[0], name, group).await;
            let (back, _) = fixture.alone(names[0], addition(group, &[name])).await;
            back.unwrap();
        }
    };
    let reading = async {
        for _ in 0..soak(50, 8) {
            for include_left in [false, true] {
                let query = ListParticipants {
                    limit: 7,
                    include_left,
                    ..list(names[0], group)
                };
                let listed = all(&fixture, query).await;
                let memberships: BTreeSet<_> = listed
                    .iter()
                    .map(|one| (one.user_id.as_str(), one.joined_at.to_string()))
                    .collect();
                assert_eq!(memberships.len(), listed.len(), "one came twice");
                let mut stayed = users(&listed);
                stayed.retain(|name| name.starts_with("stay"));
                assert_eq!(stayed, stay);
            }
        }
    };
    Box::pin(async { tokio::join!(changing, reading) }).await;
}

/// A channel of any size; the first user begins it.
async fn channel(fixture: &Fixture, names: &[String]) -> ConversationId {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let create = creation("k", ConversationType::Channel, &names[..1]);
    let (outcome, _) = fixture.alone(names[0], create).await;
    let confab_protocol::command::Outcome::Created(created) = outcome.unwrap() else {
        panic!("created");
    };
    for some in names[1..].chunks(900) {
        let add = addition(created.conversation, some);
        fixture.alone(names[0], add).await.0.unwrap();
    }
    created.conversation
}

fn list(user: &str, conversation: ConversationId) -> ListParticipants {
    ListParticipants {
        caller: caller(user),
        conversation,
        limit: 100,
        cursor: None,
        include_left: false,
        role: None,
    }
}

/// All pages of a list.
async fn all(fixture: &Fixture, mut list: ListParticipants) -> Vec<Participant> {
    let mut listed = Vec::new();
    loop {
        let query = Query::ListParticipants(list.clone());
        let Answer::Page { items, next_cursor } = ask(fixture, query).await else {
            panic!("a page");
        };
        assert!(items.len() <= list.limit as usize);
        listed.extend(
            items
                .iter()
                .map(|item| serde_json::from_str::<Participant>(item.as_str()).unwrap()),
        );
        list.cursor = next_cursor;
        if list.cursor.is_none() {
            return listed;
        }
    }
}

fn users(participants: &[Participant]) -> Vec<String> {
    let name = |one: &Participant| one.user_id.as_str().to_owned();
    participants.iter().map(name).collect()
}
