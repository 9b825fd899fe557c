//! Gateways are killed, and their clients continue at the others.

use super::{WAIT_TIMEOUT, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, eventually, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_gateways_lose_nothing_and_sessions_resume() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for round in 0..soak(20, 3) {
        let dies = round % 2;
        load.goes_on(150).await;
        cluster.gateways[dies].process_mut().kill().unwrap();
        load.goes_on(100).await;
        load.arrives(&cluster).await;
        cluster.restart_gateway(dies).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_gateways_killed_at_once_lose_nothing() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(150).await;
    let before: Vec<_> = load.clients.iter().map(|one| one.generations()).collect();
    for gateway in &mut cluster.gateways {
        gateway.process_mut().kill().unwrap();
    }
    for number in 0..cluster.gateways.len() {
        cluster.restart_gateway(number).await;
    }
    eventually("everyone is back", WAIT_TIMEOUT, async || {
        let mut generations = load
            .clients
            .iter()
            .map(|one| one.generations())
            .zip(&before);
        generations.all(|(now, before)| now > *before).then_some(())
    })
    .await;
    load.arrives(&cluster).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_killed_gateway_go_offline() {
    let mut cluster = Cluster::start(setup()).await;
    let mut load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(100).await;
    let ledger = load.stops(&cluster).await;
    load.settles(&ledger).await;
    // It stands still, so that it cannot say who leaves.
    cluster.gateways[0].process_mut().pause().unwrap();
    let url = cluster.gateways[0].url();
    assert!(load.leave_from(&url).await > 0, "nobody is there");
    cluster.gateways[0].process_mut().kill().unwrap();
    load.settles(&ledger).await;
    cluster.end().await;
}
