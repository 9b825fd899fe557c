use confab_protocol::command::Outcome;
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::{ConversationType, Participant, Role};
use futures_util::future::join_all;

use crate::commit::CommandOutcome;
use crate::testing::{
    Fixture, addition, backend, caller, code, deletion, message, role_change, sent,
};

#[tokio::test]
async fn a_second_execution_of_a_role_change_answers_as_the_first() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    let command = role_change(group, "bob", Role::Admin);
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 1);
    let participant = changed(first.clone());
    assert_eq!(
        (participant.user_id.as_str(), participant.role),
        ("bob", Role::Admin)
    );
    assert_eq!(participant.left_at, None);

    let repeat = || fixture.alone("alice", command.clone());
    assert_eq!(repeat().await, (first.clone(), 0));
    let (down, _) = fixture
        .alone("alice", role_change(group, "bob", Role::Member))
        .await;
    down.unwrap();
    fixture.remove("alice", "bob", group).await;
    let (back, _) = fixture.alone("alice", addition(group, &["bob"])).await;
    back.unwrap();
    fixture.remove("alice", "alice", group).await;
    assert_eq!(repeat().await, (first.clone(), 0));
    assert_eq!(roles(&fixture, group).await, ["bob member", "carol admin"]);
    let (gone, _) = fixture.alone_as(backend(), deletion(group)).await;
    gone.unwrap();
    assert_eq!(repeat().await, (first, 0));
}

#[tokio::test]
async fn a_role_is_what_its_member_may_do_from_then_on() {
    let fixture = Fixture::new().await;
    let channel = fixture
        .begin(ConversationType::Channel, &["alice", "bob"])
        .await;
    let send = |user| fixture.send(message(channel, user, "hello"));
    assert_eq!(code(send("bob").await), Code::InsufficientPermissions);
    let (up, _) = fixture
        .alone("alice", role_change(channel, "bob", Role::Admin))
        .await;
    up.unwrap();
    sent(send("bob").await);
    // Now that there is another, the first one may step down.
    let (down, _) = fixture
        .alone("alice", role_change(channel, "alice", Role::Member))
        .await;
    down.unwrap();
    assert_eq!(code(send("alice").await), Code::InsufficientPermissions);
    assert_eq!(
        fixture.log(channel).await[1..],
        [
            "participant.updated",
            "message.created",
            "participant.updated"
        ]
    );
}

#[tokio::test]
async fn role_changes_are_refused_as_they_should_be() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    fixture.remove("carol", "carol", group).await;
    let direct = fixture
        .begin(ConversationType::Direct, &["alice", "bob"])
        .await;
    for (who, id, whose, told) in [
        ("bob", group, "alice", Code::InsufficientPermissions),
        ("carol", group, "alice", Code::ConversationNotFound),
        ("mallory", group, "alice", Code::ConversationNotFound),
        ("alice", group, "carol", Code::ParticipantNotFound),
        ("alice", group, "mallory", Code::ParticipantNotFound),
        ("alice", group, "alice", Code::LastAdmin),
        ("alice", direct, "bob", Code::DirectConversationFixed),
        ("mallory", direct, "bob", Code::ConversationNotFound),
    ] {
        let (outcome, events) = fixture
            .alone(who, role_change(id, whose, Role::Member))
            .await;
        assert_eq!((code(outcome), events), (told, 0), "{who} {whose}");
    }
    let product = || backend();
    let (last, _) = fixture
        .alone_as(product(), role_change(group, "alice", Role::Member))
        .await;
    assert_eq!(code(last), Code::LastAdmin);
    let (up, _) = fixture
        .alone_as(product(), role_change(group, "bob", Role::Admin))
        .await;
    assert_eq!(changed(up).role, Role::Admin);
    let (gone, _) = fixture.alone_as(product(), deletion(group)).await;
    gone.unwrap();
    for who in [caller("alice"), caller("carol"), product()] {
        let (outcome, _) = fixture
            .alone_as(who, role_change(group, "bob", Role::Member))
            .await;
        assert_eq!(code(outcome), Code::ConversationDeleted);
    }
}

#[tokio::test]
async fn of_two_last_admins_who_step_down_at_once_one_stays() {
    let fixture = Fixture::new().await;
    for _ in 0..10 {
        let group = fixture.group(&["alice", "bob", "carol"]).await;
        let (up, _) = fixture
            .alone("alice", role_change(group, "bob", Role::Admin))
            .await;
        up.unwrap();
        let both = ["alice", "bob"]
            .map(|user| fixture.alone(user, role_change(group, user, Role::Member)));
        let outcomes: Vec<_> = join_all(both)
            .await
            .into_iter()
            .map(|(one, _)| one)
            .collect();
        let (taken, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((taken.len(), refused.len()), (1, 1));
        for outcome in refused {
            assert_eq!(code(outcome), Code::LastAdmin);
        }
        let admins = roles(&fixture, group).await;
        assert_eq!(
            admins.iter().filter(|role| role.ends_with("admin")).count(),
            1
        );
        assert_eq!(fixture.log(group).await.len(), 3);
    }
}

#[tokio::test]
async fn of_two_role_changes_at_once_the_later_event_holds() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let mut appended = 0;
    for _ in 0..10 {
        let both = [Role::Admin, Role::Member]
            .map(|role| fixture.alone("alice", role_change(group, "bob", role)));
        for (outcome, events) in join_all(both).await {
            changed(outcome);
            appended += events;
        }
        let (payload,): (String,) = sqlx::query_as(
            "select payload from events where conversation_id = $1 order by seq desc limit 1",
        )
        .bind(group.0)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
        let role = if payload.contains("admin") {
            "admin"
        } else {
            "member"
        };
        assert_eq!(roles(&fixture, group).await[1], format!("bob {role}"));
    }
    assert_eq!(fixture.log(group).await.len(), 1 + appended);
}

/// The present members with their roles, by name.
async fn roles(fixture: &Fixture, conversation: ConversationId) -> Vec<String> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "select user_id || ' ' || role from participants where conversation_id = $1 and left_seq is null order by user_id",
    )
    .bind(conversation.0)
    .fetch_all(&fixture.pool)
    .await
    .unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

fn changed(outcome: CommandOutcome) -> Participant {
    match outcome.unwrap() {
        Outcome::RoleChanged { participant, .. } => participant,
        other => panic!("{other:?}"),
    }
}
