//! Slow commands do not delay sends.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Cluster, Setup, claims, eventually, id_of, sample, soak};

/// Commands that wait at once: more than there are messages to a worker on the way.
const SLOW_COMMANDS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_are_answered_while_other_commands_wait() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_REQUEST_BUDGET", Some("20000".to_owned()))],
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let locked = alice.begins(0, "group", &["carol"]).await;
    let mut worker_retry = claims("bob");
    worker_retry["tenant"] = "elsewhere".into();
    let bob = cluster.user_of(&worker_retry);
    let path = bob.begins(0, "group", &["carol"]).await;

    let mut lock = cluster.store.begin().await.unwrap();
    sqlx::query("select 1 from conversations where id = $1::uuid for update")
        .bind(id_of(&locked))
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut slow = JoinSet::new();
    for n in 0..SLOW_COMMANDS {
        let (alice, locked) = (alice.clone(), locked.clone());
        slow.spawn(async move {
            let change = json!({"metadata": {"name": n.to_string()}});
            alice.patch(0, &locked, change).await.status
        });
    }
    // They are at the worker when one of them waits in Postgres.
    eventually("a command waits", Duration::from_secs(20), async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&cluster.store)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    for _ in 0..soak(200, 40) {
        bob.says(0, &path, "hi").await;
    }
    assert!(slow.try_join_next().is_none(), "the lock is held");
    lock.rollback().await.unwrap();
    cluster.end().await;
}

/// A worker answers a message once where all of it ends together: parts cost no more than the answers before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_ending_together_are_answered_together() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let mut paths = Vec::new();
    for _ in 0..16 {
        paths.push(alice.begins(0, "group", &["bob"]).await);
    }
    let counted = async |name| sample(cluster.gateways[0].port(), name).await;
    let messages = "confab_gateway_command_batch_count";
    let parts = "confab_gateway_command_parts_total";
    let before = (counted(messages).await, counted(parts).await);
    for _ in 0..20 {
        alice.says(0, &paths[0], "hi").await;
    }
    let after = (counted(messages).await, counted(parts).await);
    assert_eq!((after.0 - before.0, after.1 - before.1), (20.0, 20.0));
    let rounds = paths.iter().map(|path| async {
        for _ in 0..soak(200, 20) {
            alice.says(0, path, "hi").await;
        }
    });
    join_all(rounds).await;
    let (messages, parts) = (
        counted(messages).await - after.0,
        counted(parts).await - after.1,
    );
    println!("{messages} messages, {parts} parts");
    assert!(
        parts <= messages * 2.0,
        "{messages} messages, {parts} parts"
    );
    cluster.end().await;
}
