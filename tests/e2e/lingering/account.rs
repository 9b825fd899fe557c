//! The JetStream account reaches its storage limit, which is then raised without a restart.

use super::members_hear;
use crate::support::{Cluster, Setup};

/// Everybody's account, with so much storage.
fn account(max_file: &str) -> String {
    format!(
        "accounts {{ A {{ jetstream {{ max_file: {max_file} }}, users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hear_all_while_account_is_full() {
    let mut cluster = Cluster::start(Setup {
        nats_config: account("4GB"),
        ..Setup::default()
    })
    .await;
    Box::pin(members_hear(
        &mut cluster,
        async |cluster| cluster.reconfigure_nats(&account("1KB")),
        async |cluster, ()| cluster.reconfigure_nats(&account("4GB")),
    ))
    .await;
    cluster.end().await;
}
