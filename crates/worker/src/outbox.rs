//! From the commit into the stream: published at once where that works, by a relay where it does not, and again where the
//! stream lost what it had acknowledged.

use std::time::Instant;

use confab_bus::{Bus, BusError, Outgoing};
use confab_protocol::event::LogEntry;
use confab_protocol::ids::{EventId, TenantId};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::{Pool, bounded};
use crate::metrics::Metrics;

mod lingering;
mod marking;
mod publisher;
mod publishing;
pub(crate) mod relay;
mod standing;
pub(crate) mod sweep;
mod verify;

use lingering::Lingering;
pub(crate) use publisher::Publisher;
use relay::Relay;
use standing::Standing;

/// Connections: the publisher's marks, the relay and the marks of its runs, the comparison with the stream, the sweeps.
pub(crate) const CONNECTIONS: u32 = 10;

/// Starts what publishes, marks, announces, compares and sweeps, until `stop`; gives where committed events go. `since` is told since when
/// commits linger.
pub(crate) fn start(
    (bus, pool): (&Bus, &Pool),
    metrics: &Metrics,
    since: watch::Sender<Option<Timestamp>>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<&'static str>,
) -> Publisher {
    let (publisher, committed) = Publisher::new(metrics.clone());
    let standing = Standing::new(bus);
    let parts = || (bus.clone(), pool.clone(), standing.clone(), stop.clone());
    let (bus, pool, standing, stop) = parts();
    tasks.spawn(async move {
        publisher::run(bus, pool, committed, standing, stop).await;
        "publisher"
    });
    let (stepped_over, of_relay) = lingering::stepped_over();
    let ((bus, pool, standing, stop), counted) = (parts(), metrics.clone());
    tasks.spawn(async move {
        let relay = Relay::new((bus, pool, standing), counted, stepped_over);
        relay::run(relay, stop).await;
        "relay"
    });
    let ((bus, pool, standing, stop), counted) = (parts(), metrics.clone());
    tasks.spawn(async move {
        let lingering = Lingering::new((bus, pool, standing), counted, since);
        lingering::run(lingering, of_relay, stop).await;
        "lingering"
    });
    let ((bus, pool, standing, stop), counted) = (parts(), metrics.clone());
    tasks.spawn(async move {
        verify::run(bus, pool, standing, counted, stop).await;
        "verify"
    });
    for sweep in sweep::ALL {
        let ((bus, pool, standing, stop), counted) = (parts(), metrics.clone());
        tasks.spawn(async move {
            sweep::run(sweep, (bus, pool), standing, counted, stop).await;
            sweep.table
        });
    }
    publisher
}

/// An outbox row and the events of its commit.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) row: i64,
    pub(crate) events: Vec<Outgoing>,
}

/// The event of a log entry, on its way into the stream.
pub(crate) fn outgoing(tenant: &TenantId, entry: &LogEntry<'_>) -> Outgoing {
    Outgoing {
        tenant: tenant.clone(),
        conversation: entry.conversation,
        seq: entry.seq,
        id: entry.id,
        r#type: entry.event_type,
        target_seq: entry.target_seq,
        json: entry.encode().into(),
    }
}

/// A commit all of whose events JetStream has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) row: i64,
    /// The stream as it was when its events were handed over.
    pub(crate) stream: Compared,
    /// The highest sequence of any of its events, and that event.
    pub(crate) stream_seq: u64,
    pub(crate) event: EventId,
    /// When the last acknowledgement came.
    pub(crate) at: Instant,
}

/// A stream that was found to have what is marked as published into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compared {
    /// When it was made.
    pub(crate) created: OffsetDateTime,
    /// The connection on which it was compared.
    pub(crate) epoch: u64,
    /// Grows whenever the stream is compared behind a doubt: what was acknowledged before a doubt is not marked behind it.
    pub(crate) round: u64,
}

/// Does something on a connection, in a bounded time.
async fn on<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let done = bounded(work(&mut connection)).await?;
    connection.release();
    Ok(done)
}

/// Why the outbox could not be worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
    #[error("NATS")]
    Bus(#[from] BusError),
}

#[cfg(test)]
mod tests;
