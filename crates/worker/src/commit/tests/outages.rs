//! Clocks that stand, servers that cannot write, and locks that somebody else holds.

use crate::testing::{Fixture, message, patch, sent, unsend};

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
