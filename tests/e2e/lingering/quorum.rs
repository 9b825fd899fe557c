//! Two of three NATS servers are down: core NATS works, JetStream does not.

use super::members_hear;
use crate::support::{Cluster, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hear_all_while_quorum_is_lost() {
    let replicas = || vec![("CONFAB_NATS_REPLICAS", Some("3".to_owned()))];
    let mut cluster = Cluster::start(Setup {
        nats_peers: 2,
        worker_env: replicas(),
        gateway_env: replicas(),
        ..Setup::default()
    })
    .await;
    Box::pin(members_hear(
        &mut cluster,
        async |cluster| {
            for peer in &mut cluster.nats_peers {
                peer.kill().unwrap();
            }
        },
        async |cluster, ()| {
            for peer in &mut cluster.nats_peers {
                peer.up().await.unwrap();
            }
        },
    ))
    .await;
    cluster.end().await;
}
