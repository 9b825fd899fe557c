//! Workers die.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_lose_nothing() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let load = Load::start(&cluster, Shape::default()).await;
    for round in 0..soak(20, 2) {
        load.goes_on(200).await;
        cluster.workers[round % 2].process_mut().kill().unwrap();
        load.goes_on(100).await;
        cluster.restart_worker(round % 2).await;
        load.arrives(&cluster).await;
    }
    load.ends(&cluster).await;
    cluster.end().await;
}
