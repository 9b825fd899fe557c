//! What had no time left when its turn came is not carried out, and takes nothing with it.

use std::time::{Duration, Instant};

use confab_protocol::error::Code;
use futures_util::future::join;

use super::marks::{stands, up_to};
use crate::commit::{CommandOutcome, Committer, Fate, Item, Mark};
use crate::planner::Locking;
use crate::testing::{Fixture, code, message, patch, request, sent, soon};

#[tokio::test]
async fn mark_that_is_late_ends_no_other() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let worker = fixture.another_committer();
    let read_only = async |value: &str| {
        let text = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {value}', \
             current_database()); end $$"
        );
        let text = sqlx::AssertSqlSafe(text);
        sqlx::query(text).execute(&fixture.pool).await.unwrap();
    };
    read_only("on").await;
    let late = Instant::now() + Duration::from_millis(1500);
    let marks = [
        Mark {
            deadline: late,
            ..up_to("alice", group, 1)
        },
        up_to("bob", group, 1),
    ];
    let back = async {
        tokio::time::sleep_until(late.into()).await;
        read_only("off").await;
    };
    let (fates, ()) = tokio::join!(worker.mark(&marks), back);
    assert_eq!(codes(fates), [Some(Code::Unavailable), None]);
}

/// As when a worker stood still, or waited for a connection, between the look at a mark's budget and its statement.
#[tokio::test]
async fn mark_behind_its_budget_is_not_written() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    sent(fixture.send(message(group, "alice", "hello")).await);
    let pool = fixture.one_connection();
    let worker = Committer::on(&pool);
    let held = pool.acquire().await.unwrap();
    let end = Instant::now() + Duration::from_millis(200);
    let marks = [
        Mark {
            deadline: end,
            ..up_to("alice", group, 2)
        },
        up_to("bob", group, 2),
    ];
    let free = async {
        tokio::time::sleep_until(end.into()).await;
        held.release();
    };
    let (fates, ()) = tokio::join!(worker.mark(&marks), free);
    assert_eq!(codes(fates), [Some(Code::Unavailable), None]);
    for (user, expected) in [("alice", 1), ("bob", 2)] {
        assert_eq!(stands(&fixture.pool, group, user).await, expected, "{user}");
    }
}

/// The others wait on, and what had no time left when the lock came is not stored.
#[tokio::test]
async fn send_behind_its_budget_is_left_out_of_a_place() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let holder = fixture.hold(group).await;
    let end = Instant::now() + Duration::from_millis(200);
    let of = |user, deadline| Item {
        deadline,
        ..message(group, user, "hello")
    };
    let batch = [of("bob", soon()), of("alice", end), of("bob", soon())];
    let waiting = fixture.committer.batch(&batch, Locking::Wait);
    let release = async {
        tokio::time::sleep_until(end.into()).await;
        holder.rollback().await.unwrap();
    };
    let (end, ()) = join(waiting, release).await;
    let told = end.fates.into_iter().map(|fate| match fate {
        Fate::Decided(outcome) => outcome.map(|_| ()).map_err(|failure| failure.code),
        Fate::Locked(open) => panic!("{open:?}"),
    });
    let late = Err(Code::Unavailable);
    assert_eq!(told.collect::<Vec<_>>(), [Ok(()), late, Ok(())]);
    assert_eq!(fixture.log(group).await.len(), 3);
}

/// As when a connection was waited for.
#[tokio::test]
async fn send_behind_its_budget_ends_no_other_of_its_batch() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let pool = fixture.one_connection();
    let worker = Committer::on(&pool);
    let held = pool.acquire().await.unwrap();
    let end = Instant::now() + Duration::from_millis(200);
    let late = Item {
        deadline: end,
        ..message(group, "alice", "late")
    };
    let batch = [late, message(group, "bob", "hello")];
    let waiting = worker.batch(&batch, Locking::Skip);
    let release = async {
        tokio::time::sleep_until(end.into()).await;
        held.release();
    };
    let (mut end, ()) = join(waiting, release).await;
    let Fate::Decided(outcome) = end.fates.remove(1) else {
        panic!("nobody holds the conversation");
    };
    assert_eq!(sent(outcome).seq, 2);
    assert!(
        matches!(&end.fates[0], Fate::Decided(Err(failure)) if failure.code == Code::Unavailable)
    );
    assert_eq!(fixture.log(group).await.len(), 2);
}

fn codes(fates: Vec<Fate>) -> Vec<Option<Code>> {
    let code = |fate| match fate {
        Fate::Decided(outcome) => CommandOutcome::err(outcome).map(|failure| failure.code),
        Fate::Locked(open) => panic!("{open:?}"),
    };
    fates.into_iter().map(code).collect()
}

/// As when a worker stood still between the look at a command's budget and its statement.
#[tokio::test]
async fn command_behind_its_budget_is_not_carried_out() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let late = request("alice", patch(group, r#"{"name":"late"}"#));
    let (outcome, committed) = fixture.committer.finish_alone(&late, Instant::now()).await;
    assert_eq!(code(outcome), Code::Unavailable);
    assert!(committed.is_none());
    let stored = "select version from conversations where id = $1";
    let stored = sqlx::query_scalar::<_, i64>(stored).bind(group.0);
    assert_eq!(stored.fetch_one(&fixture.pool).await.unwrap(), 1);
}
