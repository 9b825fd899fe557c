//! Clocks that stand, servers that cannot write, and locks that somebody else holds.

use std::time::{Duration, Instant};

use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::ConversationType;
use futures_util::future::join_all;
use sqlx::{Postgres, Transaction};

use crate::commit::{CommandOutcome, Item};
use crate::testing::{
    Fixture, code, creation, message, patch, removal, request, sent, soon, unsend,
};

#[tokio::test]
async fn what_lingers_is_due_by_the_clock_and_not_by_the_log() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let hello = sent(fixture.send(message(group, "alice", "hello")).await).message_id;
    // The clock of the server that is primary now is behind that of the one before.
    sqlx::query("update conversations set last_event_at = last_event_at + interval '1 hour'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    sent(fixture.send(message(group, "alice", "hello")).await);
    for command in [patch(group, "{}"), unsend(Some(group), hello)] {
        fixture.alone("alice", command).await.0.unwrap();
    }
    let (late,): (i64,) =
        sqlx::query_as("select count(*) from outbox where created_at > clock_timestamp()")
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(late, 0);
}

#[tokio::test]
async fn a_connection_to_a_server_that_cannot_write_is_not_used_again() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let worker = fixture.another_committer();
    let read_only = async |value| {
        let text = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {value}', \
             current_database()); end $$"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .execute(&fixture.pool)
            .await
            .unwrap();
    };
    read_only("on").await;
    let request = request("alice", patch(group, "{}"));
    let (away, _) = worker.finish_alone(&request, Instant::now()).await;
    assert_eq!(code(away), Code::Unavailable);
    let late = Item {
        deadline: Instant::now() + Duration::from_millis(500),
        ..message(group, "alice", "late")
    };
    let away = worker.finish_batch(&[late]).await.outcomes.remove(0);
    assert_eq!(code(away), Code::Unavailable);
    read_only("off").await;
    let one = [message(group, "alice", "hello")];
    sent(worker.finish_batch(&one).await.outcomes.remove(0));
    let (outcome, _) = worker
        .finish_alone(&request, Instant::now() + Duration::from_secs(5))
        .await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_send_whose_kept_connection_was_ended_is_stored_once_by_another() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let worker = fixture.another_committer();
    for _ in 0..3 {
        let both = ["one", "two"].map(|text| [message(group, "alice", text)]);
        let both = both.each_ref().map(|one| worker.finish_batch(one));
        join_all(both)
            .await
            .into_iter()
            .for_each(|mut end| drop(sent(end.outcomes.remove(0))));
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where datname = current_database() and pid <> pg_backend_pid()";
        let (ended,): (i64,) = sqlx::query_as(ended)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
        // One may have served both, where the other was slow to be made.
        assert!(ended >= 1);
        let one = [message(group, "alice", "behind it")];
        let told = sent(worker.finish_batch(&one).await.outcomes.remove(0));
        assert!(!told.duplicate);
    }
    assert_eq!(fixture.log(group).await.len(), 10);
}

#[tokio::test]
async fn only_a_creation_whose_key_is_in_use_is_told_so() {
    let fixture = Fixture::new().await;
    fixture.group(&["alice"]).await;
    let key = "insert into creation_keys (tenant, user_id, key, expires_at) \
        values ('default', 'alice', 'k', now() + interval '1 day')";
    let count = "select from user_counts where user_id = 'alice' for no key update";
    for (held, told) in [
        (key, Code::IdempotencyInProgress),
        (count, Code::Overloaded),
    ] {
        let holder = hold(&fixture, held).await;
        let command = creation("k", ConversationType::Group, &["alice", "bob"]);
        let request = request("alice", command);
        let (outcome, _) = fixture
            .committer
            .finish_alone(&request, Instant::now() + Duration::from_secs(2))
            .await;
        assert_eq!(code(outcome), told);
        holder.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_last_admin_who_leaves_locks_its_heir_as_read_marks_do() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["zed", "alice"]).await;
    // A mark of both holds the first one, and comes to the second one.
    let membership = |user| {
        format!(
            "select from participants where user_id = '{user}' and left_seq is null for no key update nowait"
        )
    };
    let mut marks = hold(&fixture, &membership("alice")).await;
    let marked = async {
        fixture.waiters(1).await;
        let marked = sqlx::query(sqlx::AssertSqlSafe(membership("zed")))
            .execute(&mut *marks)
            .await;
        marks.rollback().await.unwrap();
        marked.unwrap();
    };
    let left = leave(&fixture, group, "zed");
    let (left, ()) = Box::pin(async { tokio::join!(left, marked) }).await;
    left.unwrap();
    assert_eq!(
        fixture.log(group).await[1..],
        ["participant.removed", "participant.updated"]
    );
}

async fn leave(fixture: &Fixture, group: ConversationId, user: &str) -> CommandOutcome {
    let request = request(user, removal(group, user));
    fixture.committer.finish_alone(&request, soon()).await.0
}

/// Runs a statement and keeps its locks.
async fn hold(fixture: &Fixture, text: &str) -> Transaction<'static, Postgres> {
    let mut holder = fixture.pool.begin().await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(&mut *holder)
        .await
        .unwrap();
    holder
}
