//! Connections whose state is known.
//!
//! A connection comes back only by [`Connection::release`], [`Transaction::commit`] or [`Transaction::rollback`], once its last statement
//! has ended. Dropped in any other way, by a timeout or an early return, it is closed at once and its place is free. The pool of sqlx
//! takes back what was dropped: a connection on which `begin` was on its way stays inside a transaction, and one whose peer is silent
//! is pinged without a limit and keeps its place.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confab_protocol::chain::chain;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

mod sharing;

use super::Connector;
use sharing::{Counted, Counts};

pub(crate) use sharing::Siblings;

/// Ages at which a connection is closed: in all, and unused. A middlebox may have dropped it without a word.
const MAX_LIFETIME: Duration = Duration::from_secs(1800);
const MAX_IDLE: Duration = Duration::from_secs(300);
/// How often a connection in use shows that its server is a writable primary: the longest that a read can come from another.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// How long the answer to that is waited for.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection is made, also when nobody waits for it any more: where each takes longer than one waits, the next finds it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing waits for connections in use, and for the server's end of each.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// False on a standby, and where `default_transaction_read_only` is on.
const IS_WRITABLE: &str =
    "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";
/// How many sessions of a pool's kind are at a commit that has waited for a synchronous standby for longer than anyone waits for it. A session
/// does so to its end, whether or not its connection is closed, and keeps its place on the server.
const UNENDED_COMMITS: &str = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' \
    and datname = current_database() and application_name = current_setting('application_name') \
    and clock_timestamp() - state_change > interval '5 seconds'";
/// Statements that follow see one snapshot, and cannot write.
pub(crate) const SNAPSHOT: &str = "begin isolation level repeatable read read only";
/// Each statement that follows sees what had committed when it began.
pub(crate) const READ_COMMITTED: &str = "begin";

/// A bounded set of connections to the writable primary.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connector: Connector,
    size: u32,
    acquire_timeout: Duration,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Opened>>,
    is_closed: AtomicBool,
    /// The last connection that was made was made in time. Else one is made at a time: a server that stands still would have to serve,
    /// when it goes on, all that were given up meanwhile.
    is_answering: AtomicBool,
    probing: Semaphore,
    connecting: TaskTracker,
    counts: Arc<Counts>,
    siblings: Siblings,
}

/// A connection with what its use is bounded by.
#[derive(Debug)]
struct Opened {
    inner: PgConnection,
    _counted: Counted,
    since: Instant,
    checked: Instant,
    used: Instant,
}

/// A connection on loan, outside a transaction. Dropped without a release it is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    opened: Opened,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
}

/// A connection inside a transaction. Dropped it is closed, and Postgres rolls back.
#[derive(Debug)]
pub(crate) struct Transaction(Connection);

/// Why there is no connection. Nothing was executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    #[error("none was free, or could be made, in time")]
    Timeout,
    #[error("the pool is closed")]
    Closed,
    #[error("Postgres is a standby, or read-only")]
    ReadOnly,
    #[error("so many commits as the pool has connections wait for a synchronous standby")]
    UnendedCommits,
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
}

impl Pool {
    /// A pool by itself. None is open yet.
    #[cfg(test)]
    pub(crate) fn new(
        connector: impl Into<Connector>,
        size: u32,
        acquire_timeout: Duration,
    ) -> Self {
        Self::among(&Siblings::default(), connector, size, acquire_timeout)
    }

    /// A pool that gives up to its siblings what it does not use, when the server has nothing left. None is open yet.
    pub(crate) fn among(
        siblings: &Siblings,
        connector: impl Into<Connector>,
        size: u32,
        acquire_timeout: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            connector: connector.into(),
            size,
            acquire_timeout,
            places: Arc::new(Semaphore::new(size as usize)),
            idle: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_answering: AtomicBool::new(false),
            probing: Semaphore::new(1),
            connecting: TaskTracker::new(),
            counts: Arc::default(),
            siblings: siblings.clone(),
        });
        siblings.add(&shared);
        Self(shared)
    }

    /// A connection to the writable primary. Cancel-safe.
    ///
    /// # Errors
    /// `PoolTimedOut` for whatever kept it from being had: nothing was executed.
    pub(crate) async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        self.try_acquire().await.map_err(|error| {
            debug!(error = %chain(&error), "no connection to Postgres");
            sqlx::Error::PoolTimedOut
        })
    }

    /// The same, with the reason.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub(crate) async fn try_acquire(&self) -> Result<Connection, AcquireError> {
        let acquired = timeout(self.0.acquire_timeout, self.get())
            .await
            .unwrap_or(Err(AcquireError::Timeout));
        match &acquired {
            Ok(_) => self.0.siblings.connected(),
            Err(error) => self.0.siblings.not_connected(&self.0.connector, error),
        }
        acquired
    }

    /// A connection on which a transaction has begun, by [`SNAPSHOT`] or [`READ_COMMITTED`].
    ///
    /// # Errors
    /// As [`Self::acquire`], and when the server is lost meanwhile.
    pub(crate) async fn begin(&self, how: &'static str) -> Result<Transaction, sqlx::Error> {
        let mut connection = self.acquire().await?;
        connection.opened.inner.execute(how).await?;
        Ok(Transaction(connection))
    }

    /// Closes all; waits for those in use, within bounds.
    pub(crate) async fn close(&self) {
        let shared = &self.0;
        let idle = {
            let mut idle = shared.idle();
            // Under the lock that `keep` takes, so that nothing is kept behind this.
            shared.is_closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *idle)
        };
        shared.connecting.close();
        let closing = async {
            for opened in idle {
                if let Err(error) = opened.inner.close().await {
                    debug!(error = %chain(&error), "a connection to Postgres was lost before it was closed");
                }
            }
            shared.connecting.wait().await;
            if let Err(error) = shared.places.acquire_many(shared.size).await {
                debug!(error = %chain(&error), "the pool was closed twice");
            }
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            debug!("connections to Postgres were still in use at the end");
        }
        shared.places.close();
    }

    async fn get(&self) -> Result<Connection, AcquireError> {
        let shared = &self.0;
        if shared.is_closed.load(Ordering::Relaxed) {
            return Err(AcquireError::Closed);
        }
        let place = Arc::clone(&shared.places).acquire_owned().await;
        let place = place.map_err(|_closed| AcquireError::Closed)?;
        let now = Instant::now();
        if let Some(mut opened) = shared.take(now) {
            let is_due = now.duration_since(opened.checked) >= CHECK_PERIOD;
            if !is_due || shared.is_good(&mut opened).await {
                let shared = Arc::clone(shared);
                return Ok(Connection {
                    opened,
                    shared,
                    place,
                });
            }
        }
        let connected = self.connect(place).await;
        connected.unwrap_or(Err(AcquireError::Closed))
    }

    /// Connects on a task of its own, which keeps the connection when nobody waits for it any more.
    fn connect(
        &self,
        place: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<Connection, AcquireError>> {
        let (sender, connected) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        self.0.connecting.spawn(async move {
            let connection = match shared.open_in_time().await {
                Ok(opened) => Ok(Connection {
                    opened,
                    shared,
                    place,
                }),
                Err(error) => Err(error),
            };
            if let Err(Ok(unwanted)) = sender.send(connection) {
                unwanted.release();
            }
        });
        connected
    }
}

impl Shared {
    async fn open_in_time(&self) -> Result<Opened, AcquireError> {
        let opening = async {
            let probe = match self.is_answering.load(Ordering::Relaxed) {
                true => None,
                false => Some(self.probing.acquire().await),
            };
            let opened = self.open().await;
            drop(probe);
            opened
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        self.is_answering.store(opened.is_ok(), Ordering::Relaxed);
        let opened = opened.unwrap_or(Err(AcquireError::Timeout));
        if let Err(error) = &opened {
            // Here as well: who waits may have given up before the cause is known.
            self.siblings.not_connected(&self.connector, error);
        }
        opened
    }

    async fn open(&self) -> Result<Opened, AcquireError> {
        let mut inner = self.siblings.connect(self).await?;
        self.check(&mut inner).await?;
        self.check_commits(&mut inner).await?;
        let now = Instant::now();
        Ok(Opened {
            inner,
            _counted: Counted::of(&self.counts),
            since: now,
            checked: now,
            used: now,
        })
    }

    async fn check(&self, inner: &mut PgConnection) -> Result<(), AcquireError> {
        let is_writable: bool = sqlx::query_scalar(IS_WRITABLE).fetch_one(inner).await?;
        if is_writable {
            self.siblings.writable();
            Ok(())
        } else {
            Err(AcquireError::ReadOnly)
        }
    }

    /// Whether another connection may be made: those whose commits do not end are closed after a while, and each leaves a session on the server.
    async fn check_commits(&self, inner: &mut PgConnection) -> Result<(), AcquireError> {
        let unended: i64 = sqlx::query_scalar(UNENDED_COMMITS).fetch_one(inner).await?;
        if unended < i64::from(self.size) {
            Ok(())
        } else {
            Err(AcquireError::UnendedCommits)
        }
    }

    /// Whether an open connection still leads to the writable primary, and answers in time. Where it does not, the other idle ones, unused
    /// for longer, are closed with it.
    async fn is_good(&self, opened: &mut Opened) -> bool {
        let checked = timeout(CHECK_TIMEOUT, self.check(&mut opened.inner)).await;
        let is_good = matches!(checked, Ok(Ok(())));
        if is_good {
            opened.checked = Instant::now();
        } else {
            debug!(?checked, "connections to Postgres are closed");
            self.idle().clear();
        }
        is_good
    }

    /// The one that was used last, if it is not too old.
    fn take(&self, now: Instant) -> Option<Opened> {
        let mut idle = self.idle();
        idle.retain(|opened| {
            now.duration_since(opened.since) < MAX_LIFETIME
                && now.duration_since(opened.used) < MAX_IDLE
        });
        idle.pop()
    }

    fn keep(&self, opened: Opened) {
        if self.siblings.is_wanted_beside(self) {
            self.connecting.spawn(async move {
                let closed = timeout(CLOSE_TIMEOUT, opened.inner.close()).await;
                debug!(?closed, "a connection was given up for another pool");
            });
            return;
        }
        let mut idle = self.idle();
        if !self.is_closed.load(Ordering::Relaxed) {
            idle.push(opened);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Gives it back. Only for one whose last statement has ended, outside a transaction.
    pub(crate) fn release(self) {
        let Self {
            mut opened,
            shared,
            place,
        } = self;
        opened.used = Instant::now();
        shared.keep(opened);
        // Behind it, so that who waits for the place finds the connection.
        drop(place);
    }
}

impl Transaction {
    /// Commits. When this fails the outcome is unknown.
    ///
    /// # Errors
    /// When the connection is lost or Postgres refuses.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    /// Rolls back.
    ///
    /// # Errors
    /// When the connection is lost: Postgres rolls back all the same.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), sqlx::Error> {
        self.0.opened.inner.execute(how).await?;
        self.0.release();
        Ok(())
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &Self::Target {
        &self.opened.inner
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.opened.inner
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[cfg(test)]
mod tests;
