//! What a worker has of the outbox, step by step.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use confab_bus::feed::{Backfill, BackfillItem, BackfillWindow};
use confab_bus::{Bus, Link, Settings};
use confab_protocol::ids::ConversationId;
use confab_protocol::timestamp::Timestamp;
use confab_stack::{Launch, Nats, NatsSettings, Process, Proxy, free_port};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::database::Pool;
use crate::metrics::Metrics;
use crate::outbox::lingering::{Key, Lingering, stepped_over};
use crate::outbox::marking::write_marks;
use crate::outbox::publishing::{acknowledged, send};
use crate::outbox::relay::Relay;
use crate::outbox::sweep::{self, OUTBOX};
use crate::outbox::{Committed, Mark, OutboxError, Standing, verify};
use crate::testing::{Fixture, eventually, message, programs};

/// What a worker has of the outbox, step by step, on a NATS server of the test's own.
pub(super) struct Part {
    pub(super) fixture: Fixture,
    pub(super) group: ConversationId,
    pub(super) nats: Nats,
    pub(super) bus: Bus,
    pub(super) standing: Standing,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    relay: Mutex<Relay>,
    lingering: Box<Mutex<Lingering>>,
    pub(super) since: watch::Sender<Option<Timestamp>>,
    told: Mutex<mpsc::Receiver<Vec<Key>>>,
    /// The server that the connection leads to, where that is another than the stream's.
    _near: Option<Process>,
    _folder: TempDir,
}

impl Part {
    pub(super) async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nats = nats(&folder).await;
        let url = nats.url();
        Box::pin(Self::of(folder, nats, url, None)).await
    }

    /// The connection leads through a proxy, which the test has.
    pub(super) async fn behind_proxy() -> (Self, Proxy) {
        let folder = tempfile::tempdir().unwrap();
        let nats = nats(&folder).await;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, nats.port()));
        let proxy = Proxy::start(target).await.unwrap();
        let url = format!("nats://127.0.0.1:{}", proxy.port());
        (Box::pin(Self::of(folder, nats, url, None)).await, proxy)
    }

    /// The connection leads to a server without JetStream, which has a link to the stream's.
    pub(super) async fn behind_another_server() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (link, port) = (free_port().unwrap(), free_port().unwrap());
        let far = folder.path().join("nats");
        std::fs::create_dir_all(&far).unwrap();
        let extra = format!(
            "leafnodes {{ listen: \"127.0.0.1:{link}\" }}\njetstream {{ store_dir: \"{}\", domain: far }}\n",
            far.join("store").display()
        );
        std::fs::write(far.join("extra.conf"), extra).unwrap();
        let far = nats(&folder).await;
        let config = folder.path().join("near.conf");
        let near = format!(
            "listen: \"127.0.0.1:{port}\"\nmappings {{ \"$JS.API.>\": \"$JS.far.API.>\" }}\n\
             leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{link}\" }}] }}\n"
        );
        std::fs::write(&config, near).unwrap();
        let launch = Launch {
            name: "near".to_owned(),
            program: programs().nats_server,
            args: vec!["--config".to_owned(), config.display().to_string()],
            env: Vec::new(),
            log: folder.path().join("near.log"),
        };
        let near = Process::spawn(launch).unwrap();
        let part = Box::pin(Self::of(
            folder,
            far,
            format!("nats://127.0.0.1:{port}"),
            Some(near),
        ))
        .await;
        part.reaches_stream().await;
        part
    }

    async fn of(folder: TempDir, nats: Nats, url: String, near: Option<Process>) -> Self {
        let settings = Settings {
            events_max_age: 600,
            events_max_bytes: 1 << 30,
            ..Settings::of_server(url)
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        let standing = Standing::new(&bus);
        let fixture = Fixture::new().await;
        let group = fixture.group(&["alice"]).await;
        execute(&fixture.pool, "delete from outbox").await;
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let pool = fixture.connections.clone();
        let (stepped_over, told) = stepped_over();
        let parts = (bus.clone(), pool.clone(), standing.clone());
        let relay = Relay::new(parts, metrics.clone(), stepped_over);
        let parts = (bus.clone(), pool, standing.clone());
        let since = watch::Sender::new(None);
        let lingering = Lingering::new(parts, metrics.clone(), since.clone());
        let part = Self {
            standing,
            metrics,
            registry,
            relay: Mutex::new(relay),
            lingering: Box::new(Mutex::new(lingering)),
            since,
            told: Mutex::new(told),
            fixture,
            group,
            nats,
            bus,
            _near: near,
            _folder: folder,
        };
        part.wait_for(true).await;
        part
    }

    pub(super) fn connections(&self) -> &Pool {
        &self.fixture.connections
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.fixture.pool
    }

    pub(super) fn link(&self) -> Link {
        *self.bus.connection().borrow()
    }

    pub(super) async fn wait_for(&self, connected: bool) {
        eventually("the link has changed", async || {
            let there = self.link().connected == connected && self.bus.is_connected() == connected;
            there.then_some(())
        })
        .await;
    }

    /// Kills NATS, does something with its store, and starts it again.
    pub(super) async fn restart(&mut self, with: impl FnOnce(&Nats)) {
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

    /// The same for a server that the connection does not lead to, until the stream can be asked again.
    pub(super) async fn restart_far(&mut self, with: impl FnOnce(&Nats)) {
        self.nats.kill().unwrap();
        with(&self.nats);
        self.nats.up().await.unwrap();
        self.reaches_stream().await;
    }

    async fn reaches_stream(&self) {
        eventually("the stream can be asked", async || {
            self.bus.provision().await.ok().map(drop)
        })
        .await;
    }

    /// Commits a message.
    pub(super) async fn commit(&self) -> Committed {
        let item = message(self.group, "alice", "here");
        let mut end = self.fixture.committer.finish_batch(&[item]).await;
        end.committed.remove(0)
    }

    /// Publishes a commit and marks it, where it may be marked.
    pub(super) async fn publish(&self, commit: &Committed) {
        self.publish_by(commit, &self.standing).await;
    }

    pub(super) async fn publish_by(&self, commit: &Committed, standing: &Standing) {
        let sent = send(&self.bus, &commit.events, standing).await.unwrap();
        let marks = acknowledged(commit.row, sent, standing).await.unwrap();
        let marks = marks.into_iter().collect();
        write_marks(&self.bus, self.connections(), marks, standing).await;
    }

    /// Publishes a commit; gives its mark.
    pub(super) async fn acknowledged(&self, commit: &Committed, standing: &Standing) -> Mark {
        let sent = send(&self.bus, &commit.events, standing).await.unwrap();
        let mark = acknowledged(commit.row, sent, standing).await.unwrap();
        mark.unwrap()
    }

    /// Waits until a statement waits for another's lock.
    pub(super) async fn waits_for_a_lock(&self) {
        let text = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("a statement waits for a lock", async || {
            let (waiting,): (i64,) = sqlx::query_as(text).fetch_one(self.pool()).await.unwrap();
            (waiting > 0).then_some(())
        })
        .await;
    }

    pub(super) async fn verify(&self) -> Result<(), OutboxError> {
        self.verify_by(&self.standing).await
    }

    pub(super) async fn verify_by(&self, standing: &Standing) -> Result<(), OutboxError> {
        let of = (standing, self.link().epoch);
        verify::verify(&self.bus, self.connections(), of, &self.metrics).await
    }

    /// Takes a turn of the relay.
    pub(super) async fn turn(&self) {
        let stop = CancellationToken::new();
        self.relay.lock().await.turn(&stop).await.unwrap();
    }

    /// Relays until nothing lingers.
    pub(super) async fn relay(&self) {
        eventually("nothing lingers", async || {
            self.turn().await;
            self.marked().await.into_iter().all(|is| is).then_some(())
        })
        .await;
    }

    /// Looks again at what the relay has stepped over.
    pub(super) async fn retry(&self) {
        let stop = CancellationToken::new();
        self.relay.lock().await.retry(&stop).await.unwrap();
    }

    /// Another worker's relay.
    pub(super) fn another_relay(&self) -> Relay {
        let pool = self.connections().clone();
        let (bus, standing) = (self.bus.clone(), self.standing.clone());
        let (stepped_over, _nobody) = stepped_over();
        Relay::new((bus, pool, standing), self.metrics.clone(), stepped_over)
    }

    /// What the relay has told that it stepped over, each commit once.
    pub(super) async fn stepped_over(&self) -> Vec<Vec<Key>> {
        let mut told = self.told.lock().await;
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    /// Takes a turn of the announcements.
    pub(super) async fn announce(&self) {
        let mut lingering = self.lingering.lock().await;
        lingering.turn(Instant::now()).await.unwrap();
    }

    pub(super) async fn sweep(&self) {
        let is_compared = || self.standing.now().is_some();
        sweep::delete_all(&OUTBOX, self.connections(), &self.metrics, is_compared)
            .await
            .unwrap();
    }

    /// What was published is so long ago that it is forgotten.
    pub(super) async fn age(&self) {
        let text = "update outbox set published_at = published_at - interval '10 minutes'";
        execute(self.pool(), text).await;
    }

    /// Whether each commit is marked as published.
    pub(super) async fn marked(&self) -> Vec<bool> {
        let rows: Vec<(bool,)> =
            sqlx::query_as("select published_at is not null from outbox order by id")
                .fetch_all(self.pool())
                .await
                .unwrap();
        rows.into_iter().map(|(is_marked,)| is_marked).collect()
    }

    /// How often rows were stepped over.
    pub(super) async fn attempts(&self) -> i64 {
        let text = "select coalesce(sum(attempts), 0)::bigint from outbox";
        sqlx::query_scalar(text)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    pub(super) async fn unpublished(&self) -> i64 {
        let text = "select count(*) from outbox where published_at is null";
        sqlx::query_scalar(text)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// So many commits of one event each, none of them published.
    pub(super) async fn backlog(&self, count: usize) {
        for from in (0..count).step_by(200) {
            let items: Vec<_> = (from..count.min(from + 200))
                .map(|_| message(self.group, "alice", "here"))
                .collect();
            self.fixture.committer.finish_batch(&items).await;
        }
        execute(self.pool(), "delete from outbox").await;
        execute(
            self.pool(),
            "insert into outbox (created_at, conversation_ids, seqs) select clock_timestamp(), array[conversation_id], array[seq] \
             from events where type = 'message.created' order by seq",
        )
        .await;
    }

    /// What a metric says.
    pub(super) fn count(&self, name: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).to_owned()
    }

    /// The events of the stream, as clients receive them.
    pub(super) async fn published(&self) -> Vec<String> {
        let reach = BackfillWindow {
            age: Duration::from_secs(600),
            bytes: 1 << 30,
        };
        let mut past = Backfill::open(&self.bus, reach).await.unwrap();
        let mut published = Vec::new();
        while let BackfillItem::Batch(events, _) = past.next().await {
            let texts = events
                .iter()
                .map(|event| str::from_utf8(&event.json).unwrap());
            published.extend(texts.map(str::to_owned));
        }
        published
    }

    /// How many events the stream has.
    pub(super) async fn messages(&self) -> u64 {
        self.bus.stream_state().await.unwrap().messages
    }
}

pub(super) async fn execute(pool: &PgPool, text: &'static str) {
    sqlx::query(text).execute(pool).await.unwrap();
}

async fn nats(folder: &TempDir) -> Nats {
    let settings = NatsSettings {
        folder: folder.path().join("nats"),
        port: free_port().unwrap(),
        monitor: None,
    };
    Nats::start(&programs(), settings).await.unwrap()
}
