//! The worker: decides commands, group-commits them to Postgres, publishes what was committed.

use std::sync::Arc;
use std::time::Duration;

use confab_bus::Bus;
use confab_bus::rpc::{Service, WorkerId};
use confab_protocol::condition::Monitor;
use confab_protocol::timestamp::Timestamp;
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

mod commit;
mod conditions;
mod conversations;
mod database;
mod decision;
mod dispatch;
mod error;
mod fault;
mod marks;
#[cfg(any(test, feature = "measured"))]
#[doc(hidden)]
pub mod measured;
mod messages;
mod metrics;
mod origin;
mod outbox;
mod participants;
#[doc(hidden)]
pub mod parts;
mod planner;
mod query_queue;
mod readiness;
mod reads;
mod repeats;
mod revocations;
mod settings;
#[cfg(test)]
mod testing;

pub use conditions::CONDITIONS;
pub use database::check::{When, check_database, check_reachable, database_address};
pub use database::migrate;
pub use error::Error;
pub use metrics::METRICS;
pub use readiness::Readiness;
pub use settings::{DatabaseSettings, Settings};

use commit::Committer;
use database::{Pool, Siblings, bounded};
use dispatch::Dispatch;
use metrics::Metrics;

/// Connections beside those of commands: read marks.
const OTHER_CONNECTIONS: u32 = 1;
/// Connections beside those in use: one that is still being made for who gave it up holds its place meanwhile.
const SPARE_CONNECTIONS: u32 = 2;
/// What waits in Postgres for locks that others hold, at a time; each has a connection.
pub(crate) const WAITING_PLACES: u32 = 8;
/// Connections that tell whether a worker may serve.
const READINESS_CONNECTIONS: u32 = 1;
/// How soon a service that could not start is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// A worker that was built and not started.
pub struct Worker {
    settings: Settings,
    bus: Bus,
    pools: Pools,
    metrics: Metrics,
    writes: Arc<Monitor>,
    /// Since when commits linger.
    lingering_since: watch::Sender<Option<Timestamp>>,
    /// Whether gateways can reach the worker.
    serves: watch::Sender<bool>,
    stop: CancellationToken,
}

/// Connections, by what may hold them.
struct Pools {
    batches: Pool,
    commits: Pool,
    places: Pool,
    reads: Pool,
    /// What is published, marked, compared and swept: it waits for no command, and none for it.
    outbox: Pool,
    /// One, that nothing else waits for.
    readiness: Pool,
}

/// How many connections the pools have whose size the settings say.
struct Sizes {
    batches: u32,
    commits: u32,
    reads: u32,
}

impl Sizes {
    fn of(settings: &Settings) -> Self {
        Self {
            batches: settings.commit_lanes + SPARE_CONNECTIONS,
            commits: settings.command_slots + OTHER_CONNECTIONS,
            reads: settings.read_connections() + SPARE_CONNECTIONS,
        }
    }

    /// How many connections a worker has at most.
    const fn all(&self) -> u32 {
        let others = WAITING_PLACES + outbox::CONNECTIONS + READINESS_CONNECTIONS;
        self.batches + self.commits + self.reads + others
    }
}

impl Pools {
    fn of(settings: &Settings) -> Result<Self, Error> {
        let sizes = Sizes::of(settings);
        let siblings = Siblings::default();
        let pool = |size, purpose| database::pool(settings, &siblings, size, purpose);
        let waiting = |size, purpose| database::waiting_pool(settings, &siblings, size, purpose);
        Ok(Self {
            batches: pool(sizes.batches, "batches")?,
            commits: pool(sizes.commits, "commits")?,
            places: waiting(WAITING_PLACES, "waiting places")?,
            reads: pool(sizes.reads, "reads")?,
            outbox: waiting(outbox::CONNECTIONS, "outbox")?,
            readiness: pool(READINESS_CONNECTIONS, "readiness")?,
        })
    }

    async fn close(self) {
        let pools = [
            self.batches,
            self.commits,
            self.places,
            self.reads,
            self.outbox,
            self.readiness,
        ];
        join_all(pools.iter().map(Pool::close)).await;
    }
}

impl Worker {
    /// Builds a worker that ends after `stop`.
    ///
    /// # Errors
    /// When the settings are not usable.
    pub async fn build(
        settings: Settings,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let pools = Pools::of(&settings)?;
        let bus = Bus::connect(&settings.nats, "confab-worker").await?;
        Ok(Self {
            settings,
            bus,
            pools,
            metrics: Metrics::new(registry),
            writes: Arc::new(Monitor::new(conditions::POSTGRES_WRITES)),
            lingering_since: watch::Sender::new(None),
            serves: watch::Sender::new(false),
            stop,
        })
    }

    /// What the worker may serve on.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness::new(
            &self.bus,
            &self.pools.readiness,
            (&self.writes, self.lingering_since.subscribe()),
            self.serves.subscribe(),
            &self.stop,
        )
    }

    /// Serves until the stop; then finishes what it took, and publishes what it committed.
    ///
    /// # Errors
    /// When a long-lived task ends.
    pub async fn run(self) -> Result<(), Error> {
        let Self {
            settings,
            bus,
            pools,
            metrics,
            lingering_since,
            serves,
            stop,
            ..
        } = self;
        let Some(service) = start(&bus, &pools.readiness, &settings, &stop).await? else {
            return Ok(());
        };
        serves.send_replace(true);
        let behind = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let store = (&bus, &pools.outbox);
        let publisher = outbox::start(store, &metrics, lingering_since, &behind, &mut tasks);
        let committer = Committer::new(
            [&pools.batches, &pools.commits, &pools.places].map(Pool::clone),
            metrics.clone(),
        );
        let (commits, stopped) = (committer.condition(), behind.clone());
        tasks.spawn(async move {
            conditions::settle(commits, stopped).await;
            "conditions"
        });
        let dispatch = Dispatch::new(
            (bus.clone(), service),
            committer,
            publisher,
            pools.reads.clone(),
            &settings,
            metrics,
        );
        let served = tokio::select! {
            () = dispatch.run(stop, settings.drain()) => Ok(()),
            Some(ended) = tasks.join_next() => Err(Error::TaskEnded(ended.unwrap_or("panicked"))),
        };
        behind.cancel();
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), all)
            .await
            .is_err()
        {
            warn!("what was not published is left to the relay of another worker");
        }
        bus.close().await;
        pools.close().await;
        served
    }
}

/// Takes the worker's place in the service, however long NATS or Postgres is away or the schema is older; none when it is stopped before.
///
/// # Errors
/// When what stands before Postgres is none that a worker works with: that does not pass.
async fn start(
    bus: &Bus,
    pool: &Pool,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<Option<Service>, Error> {
    let id = WorkerId(Uuid::now_v7());
    let mut is_checked = false;
    let monitor = Monitor::new(conditions::START);
    loop {
        let trying = Box::pin(try_start(bus, pool, id, settings, &mut is_checked));
        let Some(tried) = stop.run_until_cancelled(trying).await else {
            return Ok(None);
        };
        match tried {
            Ok(service) => {
                monitor.holds();
                info!(worker.id = %id, "the worker serves");
                return Ok(Some(service));
            }
            Err(error @ Error::Pooler(_)) => return Err(error),
            // The pool tells why there is no connection.
            Err(Error::Acquire(_)) => {}
            Err(error @ Error::Bus(_)) => bus.failed(&monitor, &error),
            Err(error) => monitor.failed(&error),
        }
        let waited = tokio::time::sleep(AGAIN);
        if stop.run_until_cancelled(waited).await.is_none() {
            return Ok(None);
        }
    }
}

async fn try_start(
    bus: &Bus,
    pool: &Pool,
    id: WorkerId,
    settings: &Settings,
    is_checked: &mut bool,
) -> Result<Service, Error> {
    if !*is_checked {
        let connector = database::connector(settings, "start")?;
        bounded(Box::pin(database::server::check(&connector))).await?;
    }
    let mut connection = pool.try_acquire().await?;
    let is_migrated = bounded(database::is_migrated(&mut connection)).await?;
    if !*is_checked {
        let wanted = Sizes::of(settings).all();
        bounded(database::server::compare_connections(
            &mut connection,
            wanted,
        ))
        .await?;
        *is_checked = true;
    }
    connection.release();
    if is_migrated {
        Ok(Service::start(bus, id, env!("CARGO_PKG_VERSION")).await?)
    } else {
        Err(Error::Outdated)
    }
}
