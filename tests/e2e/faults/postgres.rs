//! Postgres is killed and restarted.

use std::time::Duration;

use tokio::time::Instant;

use super::{WAIT_TIMEOUT, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, Setup, eventually, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_postgres_lose_nothing() {
    let mut cluster = start().await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for _ in 0..soak(5, 2) {
        load.goes_on(100).await;
        cluster.database.server().restart().await.unwrap();
        cluster.ready().await;
        load.goes_on(50).await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

/// They resume from their records and the window; what that cannot prove is checked when Postgres is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumes_while_postgres_is_away_loses_nothing() {
    let mut cluster = start().await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(150).await;
    let until = Instant::now() + Duration::from_secs(soak(20, 4) as u64);
    cluster.database.server().kill().unwrap();
    let mut left = Vec::new();
    for client in &load.clients {
        let generations = client.generations();
        if client.reconnects().await {
            left.push((client, generations));
        }
    }
    eventually(
        "everyone has resumed without Postgres",
        WAIT_TIMEOUT,
        async || {
            let mut left = left.iter();
            left.all(|(client, generations)| client.generations() > *generations)
                .then_some(())
        },
    )
    .await;
    // As long as the fault is.
    tokio::time::sleep_until(until).await;
    cluster.database.server().up().await.unwrap();
    cluster.ready().await;
    load.goes_on(50).await;
    load.arrives(&cluster).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

async fn start() -> Cluster {
    let setup = Setup {
        own_postgres: true,
        ..setup()
    };
    Cluster::start(setup).await
}
