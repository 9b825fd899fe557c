//! A gateway fills its replay window before it is ready, so that resumes need no worker.

use std::time::Duration;

use crate::support::{Cluster, Setup};

mod content;

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many events of before its start a gateway has read.
async fn read_of_past(cluster: &Cluster, gateway: usize) -> u64 {
    let port = cluster.gateways[gateway].port();
    let (status, text) = confab_stack::get(port, "/metrics", WAIT_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(status, 200);
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("confab_feed_past_total "));
    value.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_fills_window_before_ready() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    let mut last = 1;
    for number in 0..300 {
        last = alice.post(conversation, &number.to_string()).await;
    }
    alice.hears(conversation, last, WAIT_TIMEOUT).await;
    cluster.restart_gateway(0).await;
    assert_eq!(read_of_past(&cluster, 0).await, last);
    // A stream that was erased has no past, and what came since is there once.
    cluster.nats.kill().unwrap();
    cluster.nats.erase_store().unwrap();
    cluster.nats.up().await.unwrap();
    cluster.restart_gateway(0).await;
    assert!(read_of_past(&cluster, 0).await <= last);
    drop(alice);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_nothing_is_read() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_WINDOW_BYTES", Some("0".to_owned()))],
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    alice.says(0, &path, "hi").await;
    cluster.restart_gateway(0).await;
    assert_eq!(read_of_past(&cluster, 0).await, 0);
    cluster.end().await;
}
