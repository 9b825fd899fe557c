use confab_protocol::command::Outcome;
use confab_protocol::error::Code;
use confab_protocol::resource::Participant;
use confab_protocol::timestamp::Timestamp;

use crate::commit::CommandOutcome;
use crate::testing::{Fixture, addition, code, message, removal, sent};

#[tokio::test]
async fn a_second_execution_of_an_addition_answers_as_the_first() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let command = addition(group, &["dora", "carol"]);
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 1);
    let added = added(first.clone());
    let names: Vec<_> = added.iter().map(|one| one.user_id.as_str()).collect();
    assert_eq!(names, ["dora", "carol"]);
    assert!(added.iter().all(|one| one.last_read_seq == 2));

    let repeat = || fixture.alone("alice", command.clone());
    assert_eq!(repeat().await, (first.clone(), 0));
    fixture.remove("alice", "dora", group).await;
    fixture.remove("alice", "alice", group).await;
    assert_eq!(repeat().await, (first, 0));
    // Another command for the same users is no repeat.
    let (other, _) = fixture.alone("bob", addition(group, &["carol"])).await;
    assert_eq!(code(other), Code::AlreadyParticipant);
}

#[tokio::test]
async fn a_second_execution_of_a_removal_answers_as_the_first() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let command = removal(group, "bob");
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 1);
    let (participant, deleted_at) = removed(first.clone());
    assert!(participant.left_at.is_some() && deleted_at.is_none());

    assert_eq!(
        fixture.alone("alice", command.clone()).await,
        (first.clone(), 0)
    );
    // Also when the member is there again: the repeat must not remove it a second time.
    let (back, _) = fixture.alone("alice", addition(group, &["bob"])).await;
    back.unwrap();
    assert_eq!(fixture.alone("alice", command).await, (first, 0));
    assert_eq!(
        sent(fixture.send(message(group, "bob", "back")).await).seq,
        4
    );
}

#[tokio::test]
async fn the_last_one_who_leaves_takes_the_conversation_along() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.remove("alice", "bob", group).await;
    let command = removal(group, "alice");
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 2);
    let (participant, deleted_at) = removed(first.clone());
    assert_eq!(deleted_at, participant.left_at);
    assert_eq!(fixture.alone("alice", command).await, (first, 0));
    assert_eq!(
        fixture.log(group).await[2..],
        ["participant.removed", "conversation.deleted"]
    );
    // Those who were members are told that it is gone, strangers that there is nothing.
    for (user, told) in [
        ("alice", Code::ConversationDeleted),
        ("bob", Code::ConversationDeleted),
        ("mallory", Code::ConversationNotFound),
    ] {
        assert_eq!(code(fixture.send(message(group, user, "?")).await), told);
        assert_eq!(
            code(fixture.alone(user, removal(group, user)).await.0),
            told
        );
    }
}

#[tokio::test]
async fn a_last_admin_who_leaves_hands_over_to_the_longest_standing_member() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    // Bob came first, and came back last.
    fixture.remove("alice", "bob", group).await;
    let (back, _) = fixture.alone("alice", addition(group, &["bob"])).await;
    back.unwrap();
    let (left, events) = fixture.alone("alice", removal(group, "alice")).await;
    left.unwrap();
    assert_eq!(events, 2);
    assert_eq!(
        fixture.log(group).await[3..],
        ["participant.removed", "participant.updated"]
    );
    let (bobs, _) = fixture.alone("bob", addition(group, &["dora"])).await;
    assert_eq!(code(bobs), Code::InsufficientPermissions);
    let (carols, _) = fixture.alone("carol", addition(group, &["dora"])).await;
    assert_eq!(added(carols).len(), 1);
}

#[tokio::test]
async fn counts_of_members_and_memberships_follow_every_change() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.group(&["bob"]).await;
    let (more, _) = fixture
        .alone("alice", addition(group, &["carol", "dora"]))
        .await;
    more.unwrap();
    fixture.remove("alice", "bob", group).await;
    fixture.remove("dora", "dora", group).await;
    fixture.assert_counts().await;
}

fn added(outcome: CommandOutcome) -> Vec<Participant> {
    match outcome.unwrap() {
        Outcome::Added { participants, .. } => participants,
        other => panic!("{other:?}"),
    }
}

fn removed(outcome: CommandOutcome) -> (Participant, Option<Timestamp>) {
    match outcome.unwrap() {
        Outcome::Removed {
            participant,
            conversation_deleted_at,
            ..
        } => (participant, conversation_deleted_at),
        other => panic!("{other:?}"),
    }
}
