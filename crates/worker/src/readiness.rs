//! Whether a worker may serve, told by doing what it is for: by a commit.

use std::sync::Arc;
use std::time::Duration;

use confab_bus::Bus;
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use confab_protocol::degraded::{Degraded, EVENTS_LINGER};
use confab_protocol::timestamp::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::conditions::LINGERING_REMEDY;
use crate::database::{self, AcquireError, Pool};
use crate::error::poisons_connection;

/// What is told of a commit without an end.
const UNENDED: &str = "a commit does not end";
/// How long Postgres may take to commit where a worker counts as ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Commits a record in the write-ahead log that nobody reads: the smallest write there is.
const WRITE: &str = "select pg_logical_emit_message(true, 'confab', '')";

/// What a worker may serve on: NATS connected, Postgres migrated and taking writes.
#[derive(Debug, Clone)]
pub struct Readiness {
    bus: Bus,
    pool: Pool,
    writes: Arc<Monitor>,
    lingering_since: watch::Receiver<Option<Timestamp>>,
    /// Whether gateways can reach it.
    serves: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Readiness {
    pub(crate) fn new(
        bus: &Bus,
        pool: &Pool,
        (writes, lingering_since): (&Arc<Monitor>, watch::Receiver<Option<Timestamp>>),
        serves: watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            bus: bus.clone(),
            pool: pool.clone(),
            writes: Arc::clone(writes),
            lingering_since,
            serves,
            stop: stop.clone(),
        }
    }

    /// What is missing; nothing when the worker may serve.
    pub async fn missing(&self) -> Vec<&'static str> {
        let (postgres, is_connected) = (self.postgres().await, self.bus.is_connected());
        // What it waits for at its start is told instead, where that is known.
        let serves = *self.serves.borrow() || postgres.is_some() || !is_connected;
        let conditions = [
            ("stopping", !self.stop.is_cancelled()),
            ("nats", is_connected),
            (postgres.unwrap_or("postgres"), postgres.is_none()),
            ("service", serves),
        ];
        conditions
            .into_iter()
            .filter(|(_, holds)| !holds)
            .map(|(name, _)| name)
            .collect()
    }

    /// What the worker does by another way than the usual one; it may serve all the same.
    #[must_use]
    pub fn degraded(&self) -> Vec<Degraded> {
        let since = *self.lingering_since.borrow();
        let lingering = since.map(|since| Degraded {
            what: EVENTS_LINGER.to_owned(),
            since,
            remedy: LINGERING_REMEDY.to_owned(),
        });
        lingering.into_iter().collect()
    }

    /// What keeps Postgres from being used, found by a commit that waits for the disk and for synchronous standbys.
    async fn postgres(&self) -> Option<&'static str> {
        let mut silent = "postgres";
        let look = async {
            let mut connection = match self.pool.try_acquire().await {
                Ok(connection) => connection,
                Err(AcquireError::ReadOnly) => return Some("postgres_read_only"),
                Err(AcquireError::UnendedCommits) => {
                    self.writes.failed_for(&UNENDED);
                    return Some("postgres_writes");
                }
                Err(error) => {
                    debug!(error = %chain(&error), "Postgres is not ready");
                    return Some("postgres");
                }
            };
            match database::is_migrated(&mut connection).await {
                Ok(true) => {}
                Ok(false) => {
                    connection.release();
                    return Some("postgres_schema");
                }
                Err(error) => {
                    debug!(error = %chain(&error), "Postgres is not ready");
                    return Some("postgres");
                }
            }
            // It reads: a commit that does not end waits for the disk, or for a standby.
            silent = "postgres_writes";
            let written = sqlx::query(WRITE).execute(&mut *connection).await;
            let error = written.err();
            if !error.as_ref().is_some_and(poisons_connection) {
                connection.release();
            }
            match &error {
                None => self.writes.holds(),
                Some(error) => self.writes.failed(error),
            }
            error.map(|_| "postgres_writes")
        };
        let looked = tokio::time::timeout(READY_TIMEOUT, look).await;
        looked.unwrap_or_else(|_late| {
            if silent == "postgres_writes" {
                self.writes.failed_for(&UNENDED);
            }
            Some(silent)
        })
    }
}

#[cfg(test)]
mod tests;
