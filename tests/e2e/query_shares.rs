//! Slow reads of one user or tenant delay nobody else's reads or sessions.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{Cluster, Setup, claims, eventually};

/// Lists on their way at once.
const CONCURRENT_LISTS: usize = 40;
/// How long anybody else may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Counting takes a user's lists a second a conversation.
const SLOW_LISTS_SQL: &str = "
    create or replace function unread_messages(
        in_conversation uuid, in_user text, in_mark bigint, in_messages bigint, in_most bigint
    ) returns bigint language plpgsql stable as $$
    begin
        if in_user = 'slow' then
            perform pg_sleep(1);
        end if;
        return 1;
    end $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lists_of_one_user_delay_nobody_else() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let of_acme = |name: &str| {
        let mut claims = claims(name);
        claims["tenant"] = "acme".into();
        cluster.user_of(&claims)
    };
    let (slow, peer, other) = (of_acme("slow"), of_acme("peer"), cluster.user("other"));
    let mut shared = String::new();
    for _ in 0..3 {
        shared = peer.begins(0, "group", &["slow"]).await;
        peer.says(0, &shared, "hello").await;
    }
    let foreign = other.begins(0, "group", &["another"]).await;
    let slowed = sqlx::raw_sql(SLOW_LISTS_SQL).execute(&cluster.store).await;
    slowed.unwrap();

    let mut lists = JoinSet::new();
    for _ in 0..CONCURRENT_LISTS {
        let slow = slow.clone();
        lists.spawn(async move {
            loop {
                drop(slow.get(0, "/v1/conversations").await);
            }
        });
    }
    let sleeping = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    eventually("lists take long", Duration::from_secs(20), async || {
        let (count,): (i64,) = sqlx::query_as(sleeping)
            .fetch_one(&cluster.store)
            .await
            .unwrap();
        (count >= 4).then_some(())
    })
    .await;
    let mut longest = Duration::ZERO;
    for _ in 0..15 {
        for (user, path) in [(&other, &foreign), (&peer, &shared)] {
            let began = Instant::now();
            user.get(0, path).await.ok(200);
            user.get(0, "/v1/conversations").await.ok(200);
            longest = longest.max(began.elapsed());
            let began = Instant::now();
            drop(user.on(0).await);
            longest = longest.max(began.elapsed());
        }
    }
    println!("the longest wait beside {CONCURRENT_LISTS} slow lists: {longest:?}");
    assert!(longest < LONGEST_WAIT, "{longest:?}");
    lists.shutdown().await;
    cluster.end().await;
}
