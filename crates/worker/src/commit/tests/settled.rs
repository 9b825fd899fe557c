//! What was carried out and appended nothing is not carried out by its repeat either, whatever became of its caller since.

use confab_protocol::command::{Command, Outcome, Sent};
use confab_protocol::error::Code;
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Conversation, Role};

use crate::commit::CommandOutcome;
use crate::testing::{
    Fixture, addition, backend, code, deletion, key, message, patch, patch_of_version, removal,
    request, role_change, sent, soon, unsend,
};

/// How many keys are kept of commands that appended nothing.
async fn settled(fixture: &Fixture) -> i64 {
    let count = "select count(*) from settled_keys";
    let count = sqlx::query_scalar(count).fetch_one(&fixture.pool).await;
    count.unwrap()
}

#[tokio::test]
async fn repeat_of_a_deletion_that_found_nothing_is_answered_alike() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    let id = sent(fixture.send(message(group, "bob", "text")).await).message_id;
    let by_admin = fixture.alone("alice", unsend(None, id)).await.0;
    let deleted = sent(by_admin);
    assert_eq!((deleted.seq, settled(&fixture).await), (3, 0));

    let command = unsend(Some(group), id);
    let (first, events) = fixture.alone("bob", command.clone()).await;
    let first = sent(first);
    assert_eq!((first.seq, first.duplicate, events), (3, false, 0));
    assert_eq!(settled(&fixture).await, 1);
    // Another would be refused from now on.
    fixture.remove("alice", "bob", group).await;
    let other = fixture.alone("bob", unsend(Some(group), id)).await.0;
    assert_eq!(code(other), Code::ConversationNotFound);
    // By another worker.
    let request = request("bob", command);
    let (again, committed) = fixture
        .another_committer()
        .finish_alone(&request, soon())
        .await;
    let repeated = Sent {
        duplicate: true,
        ..first
    };
    assert_eq!(sent(again), repeated);
    assert!(committed.is_none());
    assert_eq!(settled(&fixture).await, 1);
}

#[tokio::test]
async fn repeat_of_a_second_conversation_deletion_is_answered_alike() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.alone("alice", deletion(group)).await.0.unwrap();
    let command = deletion(group);
    let (first, events) = fixture.alone_as(backend(), command.clone()).await;
    assert_eq!((events, settled(&fixture).await), (0, 1));
    // Its caller has lost the scope since, and would be refused.
    let mut caller = backend();
    caller.admin = false;
    let other = fixture.alone_as(caller.clone(), deletion(group)).await.0;
    assert_eq!(code(other), Code::ConversationNotFound);
    let (again, events) = fixture.alone_as(caller, command).await;
    let (Ok(Outcome::Deleted { deleted_at, .. }), Ok(Outcome::Deleted { deleted_at: at, .. })) =
        (again, first)
    else {
        panic!("no deletion");
    };
    assert_eq!((deleted_at, events), (at, 0));
}

#[tokio::test]
async fn settled_key_is_good_for_one_command() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let [one, two] = [message(group, "alice", "a"), message(group, "alice", "b")];
    let one = sent(fixture.send(one).await).message_id;
    let two = sent(fixture.send(two).await).message_id;
    for id in [one, one] {
        fixture.alone("alice", unsend(None, id)).await.0.unwrap();
    }
    let client_id = key();
    let with_key = |mut command: Command| {
        match &mut command {
            Command::DeleteMessage(delete) => delete.client_id = client_id,
            Command::DeleteConversation(delete) => delete.client_id = client_id,
            other => panic!("{other:?}"),
        }
        command
    };
    let first = with_key(unsend(None, one));
    fixture.alone("alice", first.clone()).await.0.unwrap();
    for reused in [with_key(unsend(None, two)), with_key(deletion(group))] {
        let (outcome, events) = fixture.alone("alice", reused).await;
        assert_eq!((code(outcome), events), (Code::IdempotencyKeyReused, 0));
    }
    fixture.alone("alice", first).await.0.unwrap();
}

/// A change that leaves everything as it was is no event: its key is kept, so that its repeat does not undo what came between.
#[tokio::test]
async fn repeat_of_a_change_of_nothing_undoes_nothing() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let role = |role| role_change(group, "bob", role);
    fixture.alone("alice", role(Role::Admin)).await.0.unwrap();
    let same = role(Role::Admin);
    let (first, events) = fixture.alone("alice", same.clone()).await;
    assert_eq!((events, settled(&fixture).await), (0, 1));
    let Ok(Outcome::RoleChanged { participant, .. }) = first else {
        panic!("{first:?}");
    };
    fixture.alone("alice", role(Role::Member)).await.0.unwrap();
    let (again, events) = fixture.alone("alice", same.clone()).await;
    let answer = Outcome::RoleChanged {
        participant,
        replayed: true,
    };
    assert_eq!((again, events), (Ok(answer), 0));
    let Command::UpdateParticipant(mut other) = same else {
        panic!("another command");
    };
    other.role = Role::Member;
    let (reused, _) = fixture
        .alone("alice", Command::UpdateParticipant(other))
        .await;
    assert_eq!(code(reused), Code::IdempotencyKeyReused);
    let left = removal(group, "bob");
    fixture.alone("alice", left.clone()).await.0.unwrap();
    fixture
        .alone("alice", addition(group, &["bob"]))
        .await
        .0
        .unwrap();
    let (again, events) = fixture.alone("alice", left).await;
    assert!(matches!(again, Ok(Outcome::Removed { .. })));
    let present = "select role from participants where user_id = 'bob' and left_seq is null";
    let present: String = sqlx::query_scalar(present)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!((present.as_str(), events), ("member", 0));
}

#[tokio::test]
async fn repeat_of_an_empty_patch_changes_no_later_name() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let name = |name: &str| patch(group, &format!(r#"{{"name":"{name}"}}"#));
    let told = |outcome: CommandOutcome| match outcome.unwrap() {
        Outcome::Updated {
            conversation,
            replayed,
        } => {
            let told: Conversation = serde_json::from_str(conversation.as_str()).unwrap();
            (
                told.metadata.into_string(),
                told.version,
                told.last_seq,
                replayed,
            )
        }
        other => panic!("{other:?}"),
    };
    fixture.alone("alice", name("one")).await.0.unwrap();
    let one = || r#"{"name":"one"}"#.to_owned();
    for unchanged in [
        patch(group, "{}"),
        name("one"),
        patch(group, r#"{"avatar":null}"#),
    ] {
        let (outcome, events) = fixture.alone("alice", unchanged).await;
        assert_eq!((told(outcome), events), ((one(), 2, 2, false), 0));
    }
    let same = name("one");
    fixture.alone("alice", same.clone()).await.0.unwrap();
    fixture.alone("alice", name("two")).await.0.unwrap();
    // The key alone counts once the metadata are others.
    let (again, events) = fixture.alone("alice", same.clone()).await;
    let two = r#"{"name":"two"}"#.to_owned();
    assert_eq!((told(again), events), ((two, 3, 3, true), 0));
    let (stale, _) = fixture
        .alone("alice", patch_of_version(group, "{}", Some(2)))
        .await;
    assert_eq!(code(stale), Code::VersionConflict);
    // Who may not see it any more is not told what it is called now.
    fixture
        .alone("alice", role_change(group, "bob", Role::Admin))
        .await
        .0
        .unwrap();
    fixture.remove("bob", "alice", group).await;
    let (gone, _) = fixture.alone("alice", same).await;
    assert_eq!(code(gone), Code::ConversationNotFound);
}

#[tokio::test]
async fn settled_patch_is_told_from_another() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let first = patch(group, "{}");
    fixture.alone("alice", first.clone()).await.0.unwrap();
    let Command::UpdateConversation(mut other) = first else {
        panic!("another command");
    };
    other.patch = JsonText::trusted(r#"{"name":"x"}"#.to_owned());
    let (reused, events) = fixture
        .alone("alice", Command::UpdateConversation(other))
        .await;
    assert_eq!((code(reused), events), (Code::IdempotencyKeyReused, 0));
}
