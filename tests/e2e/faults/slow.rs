//! Slow and paused readers miss nothing and cost the gateway bounded memory.

use std::time::Duration;

use confab_stack::{Proxy, Traffic};
use tokio::time::sleep;

use super::{WAIT_TIMEOUT, links, metric, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, Setup, eventually, soak};

const MIB_BYTES: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_or_paused_reader_catches_up() {
    let (cluster, mut links, load) = start("30").await;
    let before = peak(&cluster);
    load.goes_on(100).await;
    links[0].set(Traffic::Throttle(1024)).await;
    // So long the faults are, here and below.
    sleep(Duration::from_secs(soak(60, 4) as u64)).await;
    links[0].set(Traffic::Pass).await;
    load.arrives(&cluster).await;

    links[1].set(Traffic::Stall).await;
    sleep(Duration::from_secs(soak(20, 4) as u64)).await;
    links[1].set(Traffic::Pass).await;
    load.arrives(&cluster).await;

    let grown = peak(&cluster).saturating_sub(before);
    assert!(grown < 64 * MIB_BYTES, "the gateway grew by {grown} bytes");
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_is_closed_and_resumes() {
    let (cluster, mut links, load) = start("3").await;
    load.goes_on(100).await;
    links[0].set(Traffic::Stall).await;
    eventually("the gateway closes them", WAIT_TIMEOUT, async || {
        let ended = metric(&cluster, "confab_sockets_ended_total").await;
        (ended >= 1.0).then_some(())
    })
    .await;
    links[0].set(Traffic::Pass).await;
    load.goes_on(100).await;
    load.arrives(&cluster).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

/// The clients wait longer than any of it takes, and the links keep little.
async fn start(stall: &str) -> (Cluster, Vec<Proxy>, HistoryLoad) {
    let mut setup = setup();
    setup
        .gateway_env
        .push(("CONFAB_STALL_TIMEOUT", Some(stall.to_owned())));
    let cluster = Cluster::start(Setup { ..setup }).await;
    let (links, urls) = links(&cluster).await;
    let shape = LoadShape {
        urls: Some(urls),
        silence: Duration::from_secs(120),
        ..LoadShape::default()
    };
    let load = HistoryLoad::start(&cluster, shape).await;
    (cluster, links, load)
}

/// The most that the first gateway ever had in memory, in bytes (proc(5), `VmHWM`).
fn peak(cluster: &Cluster) -> u64 {
    let pid = cluster.gateways[0].process().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}
