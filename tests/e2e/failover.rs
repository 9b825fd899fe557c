//! A Postgres failover loses no acknowledged write, and no read comes from a former primary.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::history::{ARRIVAL_TIMEOUT, HistoryLoad, LoadShape};
use crate::support::{Cluster, Failover, Readers, Setup, Witness, eventually, soak};

/// How long something may take that the test waits for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connections that went silent may keep reads from being answered.
const MAX_READ_OUTAGE: Duration = Duration::from_secs(15);

async fn start() -> Cluster {
    Cluster::start(Setup {
        standby: true,
        gateway_env: vec![
            ("CONFAB_HEARTBEAT", Some("2".to_owned())),
            ("CONFAB_PRESENCE_GRACE", Some("1".to_owned())),
        ],
        ..Setup::default()
    })
    .await
}

/// What a worker says it lacks.
async fn missing(cluster: &Cluster, worker: usize) -> Option<Vec<String>> {
    let port = cluster.workers[worker].port();
    let (_, body) = confab_stack::get(port, "/ready", Duration::from_secs(2))
        .await
        .ok()?;
    let body: Value = serde_json::from_str(&body).ok()?;
    let missing = body["missing"].as_array()?.iter();
    missing.map(|one| one.as_str().map(str::to_owned)).collect()
}

async fn all_ready(cluster: &Cluster, within: Duration) {
    eventually("all workers are ready", within, async || {
        for worker in 0..cluster.workers.len() {
            missing(cluster, worker).await?.is_empty().then_some(())?;
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promoted_standby_has_all_that_was_acknowledged() {
    let mut cluster = start().await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    let readers = Readers::start(&cluster).await;
    load.goes_on(100).await;
    cluster.database.server().kill().unwrap();
    let failover = cluster.database.failover();
    // What is on its way between the two meets nobody.
    failover.name.cut();
    failover.standby.promote().await.unwrap();
    failover.lead_to_standby();
    let promoted = Instant::now();
    all_ready(&cluster, Duration::from_secs(soak(5, 10) as u64)).await;
    println!("ready {:?} after the promotion", promoted.elapsed());
    let witness = Witness::new(&cluster);
    tokio::join!(
        load.arrives(&cluster),
        witness.level("level after a promotion", ARRIVAL_TIMEOUT)
    );
    load.goes_on(100).await;
    readers.end().await;
    load.ends(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_led_to_standby_spoils_no_read() {
    let cluster = start().await;
    let witness = Witness::new(&cluster);
    let readers = Readers::start(&cluster).await;
    for _ in 0..soak(5, 1) {
        let failover = cluster.database.failover();
        // It has on disk what was acknowledged, and shows none of it.
        replay(failover, "pause").await;
        failover.lead_to_standby();
        failover.name.cut();
        // As long as the fault is.
        sleep(Duration::from_secs(3)).await;
        // What was connected meanwhile stays where it is.
        failover.lead_to_first();
        witness
            .level("level with the name back", ARRIVAL_TIMEOUT)
            .await;
        all_ready(&cluster, WAIT_TIMEOUT).await;
        replay(cluster.database.failover(), "resume").await;
    }
    readers.end().await;
    cluster.end().await;
}

async fn replay(failover: &Failover, how: &str) {
    let statement = format!("SELECT pg_wal_replay_{how}()");
    failover.standby.sql("postgres", &statement).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_replaced_and_reads_answered() {
    let cluster = start().await;
    let witness = Witness::new(&cluster);
    let readers = Readers::start(&cluster).await;
    for _ in 0..soak(5, 1) {
        witness
            .level("level before the silence", WAIT_TIMEOUT)
            .await;
        cluster.database.failover().name.silence();
        witness
            .level("level in spite of silence", MAX_READ_OUTAGE)
            .await;
    }
    readers.end().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_on_read_only_postgres_is_unready() {
    let mut cluster = start().await;
    let primary = cluster.database.server().url("confab");
    let standby = cluster.database.failover().standby.url("confab");
    let hot = cluster.begin_worker(&[("CONFAB_DATABASE_URL", Some(standby))]);
    says_read_only(&cluster, hot).await;
    cluster.workers[hot].process_mut().kill().unwrap();

    let read_only = async |cluster: &mut Cluster, value: &str| {
        let alter = format!("ALTER DATABASE confab SET default_transaction_read_only = {value}");
        let alter = format!("SET default_transaction_read_only = off; {alter}");
        let server = cluster.database.server();
        server.sql("postgres", &alter).await.unwrap();
    };
    read_only(&mut cluster, "on").await;
    let fresh = cluster.begin_worker(&[("CONFAB_DATABASE_URL", Some(primary))]);
    says_read_only(&cluster, fresh).await;
    read_only(&mut cluster, "off").await;
    eventually("the worker is ready", WAIT_TIMEOUT, async || {
        missing(&cluster, fresh).await?.is_empty().then_some(())
    })
    .await;
    Witness::new(&cluster)
        .level("level behind it", ARRIVAL_TIMEOUT)
        .await;
    cluster.end().await;
}

/// It is never ready, and says why.
async fn says_read_only(cluster: &Cluster, worker: usize) {
    let is_read_only = |missing: &Vec<String>| missing == &["postgres_read_only"];
    let says = async || {
        let missing = missing(cluster, worker).await?;
        assert!(
            !missing.is_empty(),
            "ready on a server that takes no writes"
        );
        Some(missing)
    };
    let why = async || says().await.filter(is_read_only).map(drop);
    for _ in 0..10 {
        // On a busy machine a look may take longer than the worker gives it.
        eventually("the worker says why it is not ready", WAIT_TIMEOUT, why).await;
        sleep(Duration::from_millis(100)).await;
    }
}
