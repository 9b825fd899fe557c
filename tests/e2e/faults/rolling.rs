//! Every process is restarted in turn under load.

use std::time::Duration;

use super::setup;
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, Setup, soak};

/// How long a process may take to end beyond its grace.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    rolls(soak(10, 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_with_short_grace_loses_nothing() {
    rolls(1).await;
}

async fn rolls(grace: usize) {
    let mut env = setup().gateway_env;
    env.push(("CONFAB_DRAIN", Some(grace.to_string())));
    let setup = Setup {
        gateway_env: env,
        ..setup()
    };
    let mut cluster = Cluster::start(setup).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    let grace = Duration::from_secs(grace as u64);
    for number in 0..2 {
        load.goes_on(100).await;
        let gateway = cluster.gateways[number].process_mut();
        let ended = gateway.stop(grace + STOP_TIMEOUT).await.unwrap();
        assert!(ended.success(), "a gateway ended with {ended}");
        cluster.restart_gateway(number).await;
        load.arrives(&cluster).await;
        let worker = cluster.workers[number].process_mut();
        let ended = worker.stop(STOP_TIMEOUT).await.unwrap();
        assert!(ended.success(), "a worker ended with {ended}");
        cluster.restart_worker(number).await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}
