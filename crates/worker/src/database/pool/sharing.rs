//! Pools of one process that share what connections their server has left.
//!
//! A pool keeps connections that lie idle. Where the server lets no more in, that would be at the cost of another pool, which could make none:
//! so it gives some up. While another wants one, a pool closes what comes back to it, but for its last one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{AcquireError, Opened, Shared};
use crate::conditions::{POSTGRES, POSTGRES_CONNECTIONS, POSTGRES_PRIMARY};
use crate::database::connector::Connector;

/// How long one who wants a connection waits before it tries again: about what a server takes to end a session.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// How long the server's end of a connection that is given up is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The pools of one process on one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Siblings(Arc<Group>);

#[derive(Debug)]
struct Group {
    pools: Mutex<Vec<Weak<Shared>>>,
    /// Connections that are wanted and that the server does not let in.
    wanted: AtomicUsize,
    is_reachable: Monitor,
    is_writable: Monitor,
    has_connections: Monitor,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            pools: Mutex::default(),
            wanted: AtomicUsize::new(0),
            is_reachable: Monitor::new(POSTGRES),
            is_writable: Monitor::new(POSTGRES_PRIMARY),
            has_connections: Monitor::new(POSTGRES_CONNECTIONS),
        }
    }
}

/// How many connections a pool has open, and how many it wants that the server does not let in.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    wanted: AtomicUsize,
}

/// An open connection's place in the count.
#[derive(Debug)]
pub(super) struct Counted(Arc<Counts>);

impl Counted {
    pub(super) fn of(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Siblings {
    pub(super) fn add(&self, pool: &Arc<Shared>) {
        self.pools().push(Arc::downgrade(pool));
    }

    /// Connects. Where the server has no connection left, those that lie idle in other pools are given up for it, one at a time, until one
    /// is let in: whoever waits for this says how long.
    pub(super) async fn connect(&self, pool: &Shared) -> Result<PgConnection, sqlx::Error> {
        let mut wanting = None;
        loop {
            let error = match pool.connector.connect().await {
                Err(error) if is_full(&error) => error,
                connected => {
                    if connected.is_ok() {
                        self.0.has_connections.succeeded();
                    }
                    return connected;
                }
            };
            self.0.has_connections.failed(&error);
            if wanting.is_none() {
                wanting = Some(Wanting::new(self, pool));
            }
            if let Some(idle) = self.take_idle(pool) {
                let closed = timeout(CLOSE_TIMEOUT, idle.inner.close()).await;
                debug!(?closed, "an idle connection was given up for another pool");
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// A connection was had.
    pub(super) fn connected(&self) {
        self.0.is_reachable.succeeded();
        self.0.has_connections.succeeded();
    }

    /// The server takes writes.
    pub(super) fn writable(&self) {
        self.0.is_writable.holds();
    }

    /// No connection was had: the server of these options is away, or is not the one to use.
    pub(super) fn not_connected(&self, connector: &Connector, error: &AcquireError) {
        let (host, port) = connector.address();
        let reason = format_args!("{host}:{port}: {}", chain(error));
        match error {
            // Readiness tells of commits that do not end.
            AcquireError::Closed | AcquireError::UnendedCommits => {}
            AcquireError::ReadOnly => self.0.is_writable.failed_for(&reason),
            // Where the server has none left, that is why: it is told by itself.
            AcquireError::Timeout if self.0.wanted.load(Ordering::Relaxed) > 0 => {}
            AcquireError::Timeout | AcquireError::Postgres(_) => {
                self.0.is_reachable.failed_for(&reason);
            }
        }
    }

    /// Whether another pool wants a connection more than this one its spare ones.
    pub(super) fn is_wanted_beside(&self, pool: &Shared) -> bool {
        let own = pool.counts.wanted.load(Ordering::Relaxed);
        self.0.wanted.load(Ordering::Relaxed) > own && pool.counts.open.load(Ordering::Relaxed) > 1
    }

    /// An idle connection of another pool: of one that has more than that, else the one that was unused for longest.
    fn take_idle(&self, but: &Shared) -> Option<Opened> {
        let pools: Vec<_> = self.pools().iter().filter_map(Weak::upgrade).collect();
        let others = || pools.iter().filter(|pool| !std::ptr::eq(&***pool, but));
        let spare = others().filter(|pool| pool.counts.open.load(Ordering::Relaxed) > 1);
        let most = spare.max_by_key(|pool| pool.idle().len());
        let taken = most.and_then(|pool| take_oldest(pool));
        taken.or_else(|| {
            let unused = others().filter_map(|pool| {
                let used = pool.idle().first().map(|opened| opened.used);
                used.map(|used| (used, pool))
            });
            let (_, longest) = unused.min_by_key(|(used, _)| *used)?;
            take_oldest(longest)
        })
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that was unused for longest: the last one used is at the end.
fn take_oldest(pool: &Shared) -> Option<Opened> {
    let mut idle = pool.idle();
    (!idle.is_empty()).then(|| idle.remove(0))
}

/// One who wants a connection, for as long as it does.
struct Wanting(Siblings, Arc<Counts>);

impl Wanting {
    fn new(siblings: &Siblings, pool: &Shared) -> Self {
        siblings.0.wanted.fetch_add(1, Ordering::Relaxed);
        pool.counts.wanted.fetch_add(1, Ordering::Relaxed);
        Self(siblings.clone(), Arc::clone(&pool.counts))
    }
}

impl Drop for Wanting {
    fn drop(&mut self) {
        self.0.0.wanted.fetch_sub(1, Ordering::Relaxed);
        self.1.wanted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the server, the role or the database has as many connections as it may have (SQLSTATE `too_many_connections`).
fn is_full(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.and_then(|error| error.code()).as_deref() == Some("53300")
}
