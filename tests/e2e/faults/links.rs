//! Links break, amid a frame, and on one side only.

use confab_stack::Traffic;
use rand::RngExt as _;

use super::{linked, setup};
use crate::support::{Cluster, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_cut_amid_a_frame_lose_nothing() {
    let cluster = Cluster::start(setup()).await;
    let (links, load) = linked(&cluster).await;
    for round in 0..soak(200, 8) {
        load.goes_on(60).await;
        let bytes = rand::rng().random_range(1..2_000);
        links[round % 2].cut_after(bytes);
        if round % 4 == 3 {
            load.arrives(&cluster).await;
        }
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

/// The client learns by silence that nobody hears it or that it hears nobody, and the gateway likewise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_links_lose_nothing() {
    let cluster = Cluster::start(setup()).await;
    let (mut links, load) = linked(&cluster).await;
    for round in 0..soak(20, 2) {
        let half = match round % 2 {
            0 => Traffic::SwallowDown,
            _ => Traffic::SwallowUp,
        };
        load.goes_on(100).await;
        links[0].set(half).await;
        // Long enough for two heartbeats on both sides.
        let lives: usize = load.clients.iter().map(|one| one.lives()).sum();
        crate::support::eventually("clients go elsewhere", super::DEADLINE, async || {
            let now: usize = load.clients.iter().map(|one| one.lives()).sum();
            (now >= lives + load.clients.len() / 3).then_some(())
        })
        .await;
        links[0].set(Traffic::Pass).await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}
