//! Links break amid a frame, and in one direction only.

use confab_stack::Traffic;
use rand::RngExt as _;

use super::{WAIT_TIMEOUT, linked, setup};
use crate::support::{Cluster, eventually, soak};

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

/// A client that hears nothing learns it by silence; one that is not heard goes on hearing, and its sends wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_links_lose_nothing() {
    let cluster = Cluster::start(setup()).await;
    let (mut links, load) = linked(&cluster).await;
    for round in 0..soak(20, 2) {
        load.goes_on(100).await;
        let generations = || {
            load.clients
                .iter()
                .map(|one| one.generations())
                .sum::<usize>()
        };
        let before = generations();
        // Those who went elsewhere are behind the other one.
        let link = &mut links[round / 2 % 2];
        if round % 2 == 0 {
            link.set(Traffic::SwallowDown).await;
            eventually("those behind it go elsewhere", WAIT_TIMEOUT, async || {
                (generations() >= before + load.clients.len() / 3).then_some(())
            })
            .await;
        } else {
            link.set(Traffic::SwallowUp).await;
            load.goes_on(100).await;
        }
        links[round / 2 % 2].set(Traffic::Pass).await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}
