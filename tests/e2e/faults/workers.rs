//! Workers are killed, alone or with everything else, before their commits were delivered.

use confab_stack::Traffic;

use super::{WAIT_TIMEOUT, linked, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, eventually, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_lose_nothing() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for round in 0..soak(20, 2) {
        load.goes_on(150).await;
        cluster.workers[round % 2].process_mut().kill().unwrap();
        load.goes_on(100).await;
        cluster.restart_worker(round % 2).await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_nats_killed_store_erased_lose_nothing() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(200).await;
    for worker in &mut cluster.workers {
        worker.process_mut().kill().unwrap();
    }
    cluster.nats.kill().unwrap();
    cluster.nats.erase_store().unwrap();
    cluster.nats.up().await.unwrap();
    for number in 0..cluster.workers.len() {
        cluster.restart_worker(number).await;
    }
    cluster.ready().await;
    load.arrives(&cluster).await;
    load.goes_on(100).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

/// A gateway, the workers and NATS with its store: who resumes says by `seen` what it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_suffices_without_gateways_and_store() {
    let mut cluster = Cluster::start(setup()).await;
    let shape = LoadShape {
        silent: 0,
        ..LoadShape::default()
    };
    let load = HistoryLoad::start(&cluster, shape).await;
    load.goes_on(200).await;
    for service in cluster.gateways.iter_mut().chain(&mut cluster.workers) {
        service.process_mut().kill().unwrap();
    }
    cluster.nats.kill().unwrap();
    cluster.nats.erase_store().unwrap();
    cluster.nats.up().await.unwrap();
    for number in 0..cluster.workers.len() {
        cluster.restart_worker(number).await;
    }
    for number in 0..cluster.gateways.len() {
        cluster.restart_gateway(number).await;
    }
    eventually("everyone is back, afresh", WAIT_TIMEOUT, async || {
        let afresh: usize = load.afresh().values().sum();
        (afresh >= load.clients.len()).then_some(())
    })
    .await;
    load.arrives(&cluster).await;
    load.ends(&cluster).await;
    cluster.end().await;
}

/// What a gateway has written and nobody got is not taken for received, also of clients that never say what they hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_link_swallowed_is_told_again() {
    let cluster = Cluster::start(setup()).await;
    let (mut links, load) = linked(&cluster).await;
    for round in 0..soak(20, 3) {
        let link = &mut links[round % 2];
        load.goes_on(100).await;
        link.set(Traffic::SwallowDown).await;
        load.goes_on(100).await;
        link.set(Traffic::Pass).await;
        link.cut();
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}
