//! All Postgres processes pause, as on a disk stall, and continue.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::sleep;

use super::setup;
use crate::history::{ARRIVAL_TIMEOUT, HistoryLoad, LoadShape};
use crate::support::{Cluster, Readers, Setup, Witness, soak};

/// What was begun meanwhile was given up or answered late: no answer behind it may be an old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_pauses_fail_no_read_and_lose_nothing() {
    let setup = Setup {
        own_postgres: true,
        ..setup()
    };
    let mut cluster = Cluster::start(setup).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    let readers = Readers::start(&cluster).await;
    let (shortest, longest) = (soak(1_000, 2_500) as u64, soak(20_000, 6_000) as u64);
    for round in 0..soak(30, 2) {
        load.goes_on(60).await;
        let pause = Duration::from_millis(rand::rng().random_range(shortest..longest));
        println!("round {round}: {pause:?}");
        cluster.database.server().pause().unwrap();
        // As long as the fault is.
        sleep(pause).await;
        cluster.database.server().resume().unwrap();
        let witness = Witness::new(&cluster);
        tokio::join!(
            load.arrives(&cluster),
            witness.level("level after a pause", ARRIVAL_TIMEOUT)
        );
    }
    readers.end().await;
    load.ends(&cluster).await;
    cluster.end().await;
}
