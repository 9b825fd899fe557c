//! Commands that wait for one lock: what comes second is decided on what the first one left.

use confab_protocol::command::Command;
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::Role;
use futures_util::StreamExt as _;
use futures_util::stream;
use time::OffsetDateTime;

use crate::commit::{CommandOutcome, Committer};
use crate::testing::{
    Fixture, addition, code, deletion, edit, message, patch, removal, request, role_change, sent,
    soon, unsend,
};

/// Carries out one command by alice and then another by bob, both waiting for the conversation's lock in this order.
async fn one_behind_the_other(
    fixture: &Fixture,
    conversation: ConversationId,
    first: Command,
    second: Command,
) -> (CommandOutcome, CommandOutcome) {
    let holder = fixture.hold(conversation).await;
    let (first, second) = (request("alice", first), request("bob", second));
    let one = fixture.committer.finish_alone(&first, soon());
    let other = async {
        fixture.queued(1).await;
        fixture.committer.finish_alone(&second, soon()).await
    };
    let release = async {
        fixture.queued(2).await;
        holder.rollback().await.unwrap();
    };
    let (one, other, ()) = Box::pin(async { tokio::join!(one, other, release) }).await;
    (one.0, other.0)
}

#[tokio::test]
async fn what_waited_while_its_caller_was_removed_is_refused() {
    let fixture = Fixture::new().await;
    for named in [true, false] {
        let group = fixture.group(&["alice", "bob"]).await;
        let id = sent(fixture.send(message(group, "bob", "hello")).await).message_id;
        let told = if named {
            Code::ConversationNotFound
        } else {
            Code::MessageNotFound
        };
        let late = edit(named.then_some(group), id, "too late");
        let removal = removal(group, "bob");
        let (first, second) = one_behind_the_other(&fixture, group, removal, late).await;
        first.unwrap();
        assert_eq!(code(second), told);
        assert_eq!(fixture.log(group).await.len(), 3);
    }
}

#[tokio::test]
async fn what_waited_while_its_caller_was_demoted_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    let up = role_change(group, "bob", Role::Admin);
    fixture.alone("alice", up).await.0.unwrap();
    let down = role_change(group, "bob", Role::Member);
    let late = deletion(group);
    let (first, second) = one_behind_the_other(&fixture, group, down, late).await;
    first.unwrap();
    assert_eq!(code(second), Code::InsufficientPermissions);
    assert_eq!(fixture.log(group).await.len(), 3);
}

#[tokio::test]
async fn a_send_that_waited_while_its_conversation_was_deleted_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let holder = fixture.hold(group).await;
    let request = request("alice", deletion(group));
    let deleted = fixture.committer.finish_alone(&request, soon());
    let items = [message(group, "bob", "too late")];
    let batch = async {
        fixture.queued(1).await;
        fixture.committer.finish_batch(&items).await
    };
    let release = async {
        fixture.queued(2).await;
        holder.rollback().await.unwrap();
    };
    let (deleted, end, ()) = Box::pin(async { tokio::join!(deleted, batch, release) }).await;
    deleted.0.unwrap();
    for outcome in end.outcomes {
        assert_eq!(code(outcome), Code::ConversationDeleted);
    }
    assert_eq!(fixture.log(group).await.len(), 2);
}

#[tokio::test]
async fn who_is_added_before_a_deletion_is_ended_by_it_and_nobody_is_added_behind() {
    let fixture = Fixture::new().await;
    let admins = async || {
        let group = fixture.group(&["alice", "bob"]).await;
        let up = role_change(group, "bob", Role::Admin);
        fixture.alone("alice", up).await.0.unwrap();
        group
    };
    let group = admins().await;
    let more = addition(group, &["carol", "dora"]);
    let (first, second) = one_behind_the_other(&fixture, group, more, deletion(group)).await;
    first.unwrap();
    second.unwrap();
    fixture.assert_counts().await;

    let group = admins().await;
    let more = addition(group, &["carol", "dora"]);
    let (first, second) = one_behind_the_other(&fixture, group, deletion(group), more).await;
    first.unwrap();
    assert_eq!(code(second), Code::ConversationDeleted);
    fixture.assert_counts().await;
    let (present,): (i64,) =
        sqlx::query_as("select count(*) from participants where left_seq is null")
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(present, 0);
}

#[tokio::test]
async fn an_edit_behind_a_deletion_brings_nothing_back() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    for edit_first in [true, false] {
        let id = sent(fixture.send(message(group, "bob", "hello")).await).message_id;
        let holder = fixture.hold(group).await;
        let edited = request("bob", edit(Some(group), id, "edited"));
        let deleted = request("alice", unsend(Some(group), id));
        let (first, second) = if edit_first {
            (&edited, &deleted)
        } else {
            (&deleted, &edited)
        };
        let one = fixture.committer.finish_alone(first, soon());
        let other = async {
            fixture.queued(1).await;
            fixture.committer.finish_alone(second, soon()).await
        };
        let release = async {
            fixture.queued(2).await;
            holder.rollback().await.unwrap();
        };
        let (one, other, ()) = Box::pin(async { tokio::join!(one, other, release) }).await;
        sent(one.0);
        if edit_first {
            sent(other.0);
        } else {
            assert_eq!(code(other.0), Code::MessageNotFound);
        }
    }
    let (left,): (i64,) =
        sqlx::query_as("select count(*) from events where payload like '%ed%\"content\"%'")
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(left, 0);
}

/// Everything at once, of every kind, by two workers: whatever is refused, the log has no gaps, no event is older than the one before
/// it, and what is counted is what there is.
#[tokio::test]
async fn a_log_is_whole_whatever_happens_at_once() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    let other = fixture.group(&["carol", "alice"]).await;
    let id = sent(fixture.send(message(group, "alice", "hello")).await).message_id;
    let workers = [fixture.committer.clone(), fixture.another_committer()];
    let mut commands = Vec::new();
    for _ in 0..6 {
        for user in ["alice", "bob", "carol"] {
            commands.extend([
                (user, patch(group, r#"{"name":"x"}"#)),
                (user, role_change(group, "bob", Role::Admin)),
                (user, role_change(group, user, Role::Member)),
                (user, addition(group, &["dora", "bob"])),
                (user, removal(group, "bob")),
                (user, removal(group, "dora")),
                (user, edit(None, id, "edited")),
            ]);
        }
        commands.push(("carol", patch(other, r#"{"name":"y"}"#)));
    }
    commands.push(("alice", unsend(Some(group), id)));
    commands.push(("carol", deletion(other)));
    // As many at a time as two workers have slots.
    let all = stream::iter(commands.into_iter().enumerate())
        .map(|(n, (user, command))| carry_out(&workers[n % 2], user, command))
        .buffer_unordered(8)
        .collect::<()>();
    let sends = stream::iter(0..20)
        .map(|_| fixture.send(message(group, "alice", "more")))
        .buffer_unordered(2)
        .collect::<Vec<_>>();
    Box::pin(async { tokio::join!(all, sends) }).await;

    fixture.assert_counts().await;
    for id in [group, other] {
        fixture.log(id).await;
        let times: Vec<(OffsetDateTime,)> =
            sqlx::query_as("select created_at from events where conversation_id = $1 order by seq")
                .bind(id.0)
                .fetch_all(&fixture.pool)
                .await
                .unwrap();
        assert!(times.is_sorted());
    }
}

async fn carry_out(worker: &Committer, user: &str, command: Command) {
    let (outcome, _) = worker.finish_alone(&request(user, command), soon()).await;
    let refusals = [
        Code::AlreadyParticipant,
        Code::ConversationDeleted,
        Code::ConversationNotFound,
        Code::InsufficientPermissions,
        Code::LastAdmin,
        Code::MessageNotFound,
        Code::ParticipantNotFound,
    ];
    if let Err(failure) = outcome {
        assert!(refusals.contains(&failure.code), "{failure}");
    }
}
