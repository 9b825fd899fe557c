//! What a worker says it lacks, on servers of the test's own.

use confab_stack::{Nats, NatsSettings, Postgres, PostgresSettings, free_port};
use tempfile::TempDir;

use super::*;
use crate::DatabaseSettings;
use crate::testing::{connections_of, durability, eventually, pool, programs, settings};

async fn postgres(folder: &TempDir) -> Postgres {
    let settings = PostgresSettings {
        folder: folder.path().join("postgres"),
        port: free_port().unwrap(),
        durability: durability(),
    };
    Postgres::start(&programs(), settings).await.unwrap()
}

async fn nats(folder: &TempDir) -> Nats {
    let settings = NatsSettings {
        folder: folder.path().join("nats"),
        port: free_port().unwrap(),
        monitor: None,
    };
    Nats::start(&programs(), settings).await.unwrap()
}

/// A standby that commits wait for, and that is not there, keeps nobody from reading.
#[tokio::test]
async fn commits_that_do_not_end_are_told() {
    let folder = TempDir::new().unwrap();
    let (server, nats) = (postgres(&folder).await, nats(&folder).await);
    let url = server.database("readiness").await.unwrap();
    let database = DatabaseSettings::of_url(url.clone());
    database::migrate(&database).await.unwrap();
    let mut settings = settings(&url);
    settings.nats.nats_url = vec![nats.url()];
    let bus = Bus::connect(&settings.nats, "test").await.unwrap();
    let stop = CancellationToken::new();
    let writes = Arc::new(Monitor::new(crate::conditions::POSTGRES_WRITES));
    let serves = watch::Sender::new(false);
    let readiness = Readiness::new(
        &bus,
        &connections_of(&url, 1),
        (&writes, watch::channel(None).1),
        serves.subscribe(),
        &stop,
    );
    let says = async |expected: &[&str]| {
        eventually("readiness says so", async || {
            (readiness.missing().await == expected).then_some(())
        })
        .await;
    };
    says(&["service"]).await;
    serves.send_replace(true);
    says(&[]).await;
    let standbys = async |names: &str| {
        let alter = format!("alter system set synchronous_standby_names = '{names}'");
        for text in [alter.as_str(), "select pg_reload_conf()"] {
            server.sql("postgres", text).await.unwrap();
        }
    };
    let look = pool(&url);
    let unended = async || {
        let unended = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        let count: i64 = sqlx::query_scalar(unended).fetch_one(&look).await.unwrap();
        count
    };
    standbys("nobody").await;
    for _ in 0..8 {
        says(&["postgres_writes"]).await;
    }
    let left = unended().await;
    assert!((1..=4).contains(&left), "{left} sessions are left");
    standbys("").await;
    says(&[]).await;
    eventually("commits end", async || (unended().await == 0).then_some(())).await;
    stop.cancel();
    says(&["stopping"]).await;
}
