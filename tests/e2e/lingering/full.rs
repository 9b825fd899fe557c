//! The full stream refuses publishes, then has space again without a restart.

use super::members_hear;
use crate::support::{Cluster, RefusingStream, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hear_all_while_stream_is_full() {
    let mut cluster = Cluster::start(Setup::default()).await;
    Box::pin(members_hear(
        &mut cluster,
        async |cluster| RefusingStream::of(cluster).await,
        async |_, stream| stream.accept().await,
    ))
    .await;
    cluster.end().await;
}
