//! Clocks that stand, servers that cannot write, and locks that somebody else holds.

use std::time::{Duration, Instant};

use confab_protocol::command::MarkRead;
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::resource::ConversationType;
use futures_util::future::join_all;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::commit::{CommandOutcome, Item, Mark};
use crate::testing::{
    Fixture, caller, code, creation, eventually, message, patch, removal, request, sent, soak,
    soon, unsend,
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

/// Read marks over two conversations, the last admin who leaves one of them, and its leaving of the other want each other's rows.
#[tokio::test]
async fn marks_and_leavings_of_one_user_all_end() {
    let fixture = Fixture::new().await;
    for round in 0..soak(60, 6) {
        let one = fixture.group(&["zed", "alice"]).await;
        let other = fixture.group(&["alice", "zed"]).await;
        let mut ids = Vec::new();
        for group in [one, other] {
            ids.push(sent(fixture.send(message(group, "alice", "hello")).await).message_id);
        }
        let mut rows = [("alice", one), ("zed", one), ("zed", other)];
        rows.rotate_left(round % 3);
        // A statement of marks that has come to its first row, and comes to the others when one of the two waits for that.
        let mut holder = fixture.pool.begin().await.unwrap();
        mark(&mut holder, rows[0]).await;
        let marking = async {
            someone_is_queued(&fixture).await;
            for row in &rows[1..] {
                mark(&mut holder, *row).await;
            }
            holder.commit().await.unwrap();
        };
        let marks = ["alice", "zed"].map(|user| Mark {
            caller: caller(user),
            read: MarkRead::Messages(ids.clone()),
            deadline: soon(),
            origin: crate::origin::Origin::default(),
        });
        let all = async {
            tokio::join!(
                leave(&fixture, one, "zed"),
                leave(&fixture, other, "zed"),
                fixture.committer.finish_marks(&marks),
                marking
            )
        };
        let (first, second, marked, ()) = Box::pin(all).await;
        for left in [first, second] {
            left.unwrap();
        }
        for refused in marked.into_iter().filter_map(Result::err) {
            assert_eq!(refused.code, Code::MessageNotFound, "zed has left");
        }
        let left = ["participant.removed", "participant.updated"];
        assert_eq!(fixture.log(one).await[2..], left);
        assert_eq!(fixture.log(other).await[2..], left[..1]);
    }
    fixture.assert_counts().await;
}

/// Marks all of a conversation as read, as a statement of marks does.
async fn mark(holder: &mut PgConnection, (user, group): (&str, ConversationId)) {
    sqlx::query("select mark_read('{0}', '{default}', array[$1], array[$2], '{2}', '{null}')")
        .bind(user)
        .bind(group.0)
        .execute(holder)
        .await
        .unwrap();
}

async fn someone_is_queued(fixture: &Fixture) {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
        and wait_event_type = 'Lock' and clock_timestamp() - query_start >= interval '100 ms'";
    eventually("a leaving waits", async || {
        let count = sqlx::query_scalar(waiting).fetch_one(&fixture.pool);
        let count: i64 = count.await.unwrap();
        (count > 0).then_some(())
    })
    .await;
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
