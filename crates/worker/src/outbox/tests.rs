//! What JetStream acknowledged and lost is published again, whatever was published meanwhile and however long it was away.

use confab_bus::{Bus, Link, Settings};
use confab_protocol::ids::ConversationId;
use confab_stack::{Nats, NatsSettings, free_port};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Committed, Compared, OutboxError, Publisher, Standing, acknowledged, mark, relay, send, verify,
    write_marks,
};
use crate::database::Pool;
use crate::metrics::Metrics;
use crate::testing::{Fixture, eventually, message, programs};

#[tokio::test]
async fn what_an_erased_stream_had_is_found_though_the_new_one_has_marks() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    assert_eq!(part.marked().await, [true]);
    part.restart(|nats| nats.erase_store().unwrap()).await;
    // A gateway makes the stream anew, and another worker knows it before this one has compared.
    let created = part.bus.provision().await.unwrap().created;
    let epoch = part.link().epoch;
    for _ in 0..2 {
        let there = part.commit().await;
        let sent = send(&part.bus, &there.events).await.unwrap();
        let stream = Some(Compared { created, epoch });
        let of_another = acknowledged(there.row, sent, stream).await.unwrap();
        let mut other = part.pool().begin().await.unwrap();
        mark(&mut other, &[of_another], created).await.unwrap();
        other.commit().await.unwrap();
    }
    assert_eq!(part.marked().await, [true, true, true]);

    part.verify().await.unwrap();
    assert!(!part.marked().await[0]);
    part.relay().await;
    assert_eq!(part.messages().await, 3);
}

#[tokio::test]
async fn what_was_published_is_kept_while_nats_is_away_for_long() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    // It never came: its worker died, and every other as well.
    part.commit().await;
    part.nats.kill().unwrap();
    part.nats.erase_store().unwrap();
    part.wait_for(false).await;
    part.age().await;
    part.sweep().await;
    assert_eq!(part.marked().await.len(), 2, "swept while NATS is away");
    part.nats.up().await.unwrap();
    part.wait_for(true).await;
    part.sweep().await;
    assert_eq!(
        part.marked().await.len(),
        2,
        "swept before the stream was compared"
    );

    part.verify().await.unwrap();
    part.relay().await;
    assert_eq!(part.messages().await, 2);
    part.age().await;
    part.sweep().await;
    assert!(part.marked().await.is_empty());
}

#[tokio::test]
async fn what_a_stream_lost_is_found_though_it_has_grown_over_it() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let kept = part.commit().await;
    part.publish(&kept).await;
    part.restart(|nats| nats.copy_store().unwrap()).await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    part.restart(|nats| nats.put_back_store().unwrap()).await;
    // What was committed meanwhile comes before the comparison, and takes the place of what was lost.
    let (publisher, committed) = Publisher::new();
    for _ in 0..3 {
        publisher.publish(part.commit().await);
    }
    drop(publisher);
    let (bus, pool) = (part.bus.clone(), part.connections().clone());
    let stop = CancellationToken::new();
    super::run(bus, pool, committed, part.standing.clone(), stop).await;
    assert_eq!(part.bus.stream_state().await.unwrap().last, 4);
    assert_eq!(part.marked().await, [true, true, false, false, false]);

    part.verify().await.unwrap();
    assert_eq!(part.marked().await, [true, false, false, false, false]);
    part.relay().await;
    assert_eq!(part.messages().await, 5);
}

#[tokio::test]
async fn marks_of_one_connection_are_not_written_on_the_next() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    let sent = send(&part.bus, &commit.events).await.unwrap();
    let stream = part.standing.now();
    let marks = vec![acknowledged(commit.row, sent, stream).await.unwrap()];
    part.restart(|_| {}).await;
    part.verify().await.unwrap();
    write_marks(part.connections(), marks, &part.standing).await;
    assert_eq!(part.marked().await, [false]);
    part.relay().await;
    assert_eq!(part.messages().await, 1);
}

#[tokio::test]
async fn marks_that_wait_in_postgres_are_not_written_on_the_next_connection() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    let sent = send(&part.bus, &commit.events).await.unwrap();
    let stream = part.standing.now();
    let marks = vec![acknowledged(commit.row, sent, stream).await.unwrap()];
    let mut other = part.pool().begin().await.unwrap();
    sqlx::query("select id from outbox for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let (pool, standing) = (part.connections().clone(), part.standing.clone());
    let writing = async move { write_marks(&pool, marks, &standing).await };
    let meanwhile = async {
        part.waits_for_a_lock().await;
        part.restart(|_| {}).await;
        part.verify().await.unwrap();
        other.rollback().await.unwrap();
    };
    tokio::join!(writing, meanwhile);
    assert_eq!(part.marked().await, [false]);
}

#[tokio::test]
async fn who_stops_writes_the_marks_of_all_that_was_acknowledged() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let (publisher, committed) = Publisher::new();
    for _ in 0..3 {
        publisher.publish(part.commit().await);
    }
    let stop = CancellationToken::new();
    stop.cancel();
    let (bus, pool) = (part.bus.clone(), part.connections().clone());
    super::run(bus, pool, committed, part.standing.clone(), stop).await;
    assert_eq!(part.marked().await, [true, true, true]);
}

#[tokio::test]
async fn while_another_worker_looks_for_what_is_lost_nothing_is_marked() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    part.restart(|nats| nats.erase_store().unwrap()).await;
    let mut other = part.pool().begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(verify::LOCK)
        .execute(&mut *other)
        .await
        .unwrap();
    assert!(matches!(part.verify().await, Err(OutboxError::Busy)));
    assert_eq!(part.standing.now(), None);
    other.rollback().await.unwrap();
    part.verify().await.unwrap();
    part.relay().await;
    assert_eq!(part.messages().await, 1);
}

/// What a worker has of the outbox, step by step, on a NATS server of the test's own.
struct Part {
    fixture: Fixture,
    group: ConversationId,
    nats: Nats,
    bus: Bus,
    compared: watch::Sender<Option<Compared>>,
    standing: Standing,
    metrics: Metrics,
    _folder: TempDir,
}

impl Part {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = NatsSettings {
            folder: folder.path().join("nats"),
            port: free_port().unwrap(),
            monitor: None,
        };
        let nats = Nats::start(&programs(), settings).await.unwrap();
        let settings = Settings {
            nats_url: vec![nats.url()],
            nats_user: None,
            nats_password: None,
            nats_credentials: None,
            nats_replicas: 1,
            events_max_age: 600,
            events_max_bytes: 1 << 20,
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        let (compared, standing) = Standing::new(&bus);
        let fixture = Fixture::new().await;
        let group = fixture.group(&["alice"]).await;
        execute(&fixture.pool, "delete from outbox").await;
        let part = Self {
            standing,
            metrics: Metrics::new(&mut Registry::default()),
            fixture,
            group,
            nats,
            bus,
            compared,
            _folder: folder,
        };
        part.wait_for(true).await;
        part
    }

    fn connections(&self) -> &Pool {
        &self.fixture.connections
    }

    fn pool(&self) -> &PgPool {
        &self.fixture.pool
    }

    fn link(&self) -> Link {
        *self.bus.connection().borrow()
    }

    async fn wait_for(&self, connected: bool) {
        eventually("the link has changed", async || {
            let there = self.link().connected == connected && self.bus.is_connected() == connected;
            there.then_some(())
        })
        .await;
    }

    /// Kills NATS, does something with its store, and starts it again.
    async fn restart(&mut self, with: impl FnOnce(&Nats)) {
        let before = self.link().epoch;
        self.nats.kill().unwrap();
        with(&self.nats);
        self.nats.up().await.unwrap();
        eventually("NATS is connected again", async || {
            (self.link().epoch > before).then_some(())
        })
        .await;
        self.wait_for(true).await;
    }

    /// Commits a message.
    async fn commit(&self) -> Committed {
        let item = message(self.group, "alice", "here");
        let mut end = self.fixture.committer.batch(&[item]).await;
        end.committed.remove(0)
    }

    /// Publishes a commit and marks it.
    async fn publish(&self, commit: &Committed) {
        let sent = send(&self.bus, &commit.events).await.unwrap();
        let acknowledged = acknowledged(commit.row, sent, self.standing.now()).await;
        write_marks(
            self.connections(),
            vec![acknowledged.unwrap()],
            &self.standing,
        )
        .await;
    }

    /// Waits until a statement waits for another's lock.
    async fn waits_for_a_lock(&self) {
        let text = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("a statement waits for a lock", async || {
            let (waiting,): (i64,) = sqlx::query_as(text).fetch_one(self.pool()).await.unwrap();
            (waiting > 0).then_some(())
        })
        .await;
    }

    async fn verify(&self) -> Result<(), OutboxError> {
        let of = (&self.compared, self.link().epoch);
        verify::verify(&self.bus, self.connections(), of, &self.metrics).await
    }

    /// Relays until nothing lingers.
    async fn relay(&self) {
        eventually("nothing lingers", async || {
            let relayed =
                relay::relay(&self.bus, self.connections(), &self.standing, &self.metrics);
            relayed.await.unwrap();
            self.marked().await.into_iter().all(|is| is).then_some(())
        })
        .await;
    }

    async fn sweep(&self) {
        relay::sweep(self.connections(), &self.standing)
            .await
            .unwrap();
    }

    /// What was published is so long ago that it is forgotten.
    async fn age(&self) {
        let text = "update outbox set published_at = published_at - interval '10 minutes'";
        execute(self.pool(), text).await;
    }

    /// Whether each commit is marked as published.
    async fn marked(&self) -> Vec<bool> {
        let rows: Vec<(bool,)> =
            sqlx::query_as("select published_at is not null from outbox order by id")
                .fetch_all(self.pool())
                .await
                .unwrap();
        rows.into_iter().map(|(is_marked,)| is_marked).collect()
    }

    /// How many events the stream has.
    async fn messages(&self) -> u64 {
        self.bus.stream_state().await.unwrap().messages
    }
}

async fn execute(pool: &PgPool, text: &'static str) {
    sqlx::query(text).execute(pool).await.unwrap();
}
