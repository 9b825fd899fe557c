//! A conversation that has members has an admin, whatever is asked for by whom, in whatever order.

use confab_protocol::command::{AddParticipants, Caller, Command, Outcome};
use confab_protocol::error::Code;
use confab_protocol::event::Member;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::{ConversationType, Role};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::testing::{Fixture, addition, backend, caller, code, key, removal, role_change, soak};

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

#[tokio::test]
async fn last_admin_who_is_alone_stays_admin() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    for who in [caller("alice"), backend()] {
        let down = role_change(group, "alice", Role::Member);
        let (outcome, events) = fixture.alone_as(who, down).await;
        assert_eq!((code(outcome), events), (Code::LastAdmin, 0));
    }
    fixture
        .alone("alice", addition(group, &["bob"]))
        .await
        .0
        .unwrap();
    assert_eq!(roles(&fixture, group).await, ["alice admin", "bob member"]);
}

/// As groups could be left before: the first change of their members mends them.
#[tokio::test]
async fn group_left_without_admin_gets_one() {
    let fixture = Fixture::new().await;
    for who in ["backend", "bob"] {
        let group = fixture.group(&["alice", "bob"]).await;
        sqlx::query("update participants set role = 'member' where conversation_id = $1")
            .bind(group.0)
            .execute(&fixture.pool)
            .await
            .unwrap();
        if who == "backend" {
            let adding = addition(group, &["carol", "dave"]);
            let (outcome, _) = fixture.alone_as(backend(), adding).await;
            let Outcome::Added { participants, .. } = outcome.unwrap() else {
                panic!("an addition");
            };
            let told: Vec<_> = participants.iter().map(|one| one.role).collect();
            assert_eq!(told, [Role::Admin, Role::Member]);
            let admins = ["alice member", "bob member", "carol admin", "dave member"];
            assert_eq!(roles(&fixture, group).await, admins);
        } else {
            fixture.remove("bob", "bob", group).await;
            assert_eq!(roles(&fixture, group).await, ["alice admin"]);
        }
    }
}

#[tokio::test]
async fn members_have_an_admin_after_random_changes() {
    let fixture = Fixture::new().await;
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..soak(40, 4) {
        let r#type = *[ConversationType::Group, ConversationType::Channel]
            .choose(&mut rng)
            .unwrap();
        let conversation = fixture
            .begin(r#type, &USERS[..rng.random_range(1..=4)])
            .await;
        for _ in 0..60 {
            let who = any_caller(&mut rng);
            let command = any_change(&mut rng, conversation);
            let text = format!("{command:?} by {}, seed {seed}", who.user);
            let _granted_or_refused = fixture.alone_as(who, command).await;
            let left = roles(&fixture, conversation).await;
            let is_led = left.iter().any(|one| one.ends_with(" admin"));
            assert!(left.is_empty() || is_led, "{text}: {left:?}");
        }
        fixture.assert_counts().await;
    }
}

fn any_caller(rng: &mut StdRng) -> Caller {
    if rng.random_bool(0.3) {
        return backend();
    }
    caller(USERS.choose(rng).unwrap())
}

fn any_change(rng: &mut StdRng, conversation: ConversationId) -> Command {
    let user = *USERS.choose(rng).unwrap();
    let role = *[Role::Member, Role::Member, Role::Admin]
        .choose(rng)
        .unwrap();
    match rng.random_range(0..3) {
        0 => Command::AddParticipants(AddParticipants {
            conversation,
            participants: vec![Member {
                user_id: user.parse().unwrap(),
                role,
            }],
            client_id: key(),
        }),
        1 => removal(conversation, user),
        _ => role_change(conversation, user, role),
    }
}

/// The present members and their roles, in the order of their names.
async fn roles(fixture: &Fixture, conversation: ConversationId) -> Vec<String> {
    sqlx::query_scalar(
        "select user_id || ' ' || role from participants where conversation_id = $1 and left_seq is null order by user_id",
    )
    .bind(conversation.0)
    .fetch_all(&fixture.pool)
    .await
    .unwrap()
}
