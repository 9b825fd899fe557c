//! NATS restarts, is erased, is restored, or loses its stream, bucket or a consumer.

use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt as _;

use super::{WAIT_TIMEOUT, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, eventually, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_nats_lose_nothing() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for _ in 0..soak(5, 2) {
        load.goes_on(100).await;
        cluster.nats.restart().await.unwrap();
        cluster.ready().await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

/// Behind it a gateway is killed: the others' sessions, and its own, were written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_store_loses_nothing_for_resuming_clients() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for round in 0..soak(2, 1) {
        load.goes_on(100).await;
        cluster.nats.kill().unwrap();
        cluster.nats.erase_store().unwrap();
        cluster.nats.up().await.unwrap();
        cluster.ready().await;
        load.arrives(&cluster).await;
        records_are_back(&cluster, &load).await;
        kill_gateway(&mut cluster, &load, round % 2).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_store_copy_loses_nothing_for_resuming_clients() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for round in 0..soak(2, 1) {
        load.goes_on(100).await;
        cluster.nats.kill().unwrap();
        cluster.nats.copy_store().unwrap();
        cluster.nats.up().await.unwrap();
        cluster.ready().await;
        load.goes_on(150).await;
        cluster.nats.kill().unwrap();
        cluster.nats.put_back_store().unwrap();
        cluster.nats.up().await.unwrap();
        cluster.ready().await;
        load.arrives(&cluster).await;
        records_are_back(&cluster, &load).await;
        kill_gateway(&mut cluster, &load, round % 2).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_stream_bucket_and_consumers_lose_nothing() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    let jetstream = jetstream(&cluster).await;
    load.goes_on(100).await;
    jetstream.delete_stream("CONFAB_EVENTS").await.unwrap();
    load.goes_on(100).await;
    load.arrives(&cluster).await;

    let stream = jetstream.get_stream("CONFAB_EVENTS").await.unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    assert!(!names.is_empty());
    for name in names {
        stream.delete_consumer(&name).await.unwrap();
    }
    load.goes_on(100).await;
    load.arrives(&cluster).await;

    jetstream.delete_stream("KV_confab_sessions").await.unwrap();
    records_are_back(&cluster, &load).await;
    kill_gateway(&mut cluster, &load, 0).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

async fn jetstream(cluster: &Cluster) -> Context {
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    jetstream::new(client)
}

/// Waits until every live session has a record again.
async fn records_are_back(cluster: &Cluster, load: &HistoryLoad) {
    let jetstream = jetstream(cluster).await;
    eventually("every session has a record", WAIT_TIMEOUT, async || {
        let stream = jetstream.get_stream("KV_confab_sessions").await;
        let mut stream = stream.ok()?;
        let records = stream.info().await.ok()?.state.messages;
        (records >= load.clients.len() as u64).then_some(())
    })
    .await;
}

async fn kill_gateway(cluster: &mut Cluster, load: &HistoryLoad, number: usize) {
    cluster.gateways[number].process_mut().kill().unwrap();
    load.goes_on(100).await;
    load.arrives(cluster).await;
    cluster.restart_gateway(number).await;
}
