//! What takes long delays nothing of another kind: sends go on while other commands wait for a lock.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Cluster, Setup, claims, eventually, id_of, soak};

/// Commands that wait at once: more than there are messages to a worker on the way.
const SLOW: usize = 12;

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
    let mut elsewhere = claims("bob");
    elsewhere["tenant"] = "elsewhere".into();
    let bob = cluster.user_of(&elsewhere);
    let path = bob.begins(0, "group", &["carol"]).await;

    let mut lock = cluster.store.begin().await.unwrap();
    sqlx::query("select 1 from conversations where id = $1::uuid for update")
        .bind(id_of(&locked))
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut slow = JoinSet::new();
    for n in 0..SLOW {
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
