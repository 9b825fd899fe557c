//! The conditions of a worker that the log tells of.

use std::sync::Arc;
use std::time::Duration;

use confab_bus::Bus;
use confab_protocol::condition::{Condition, Monitor};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::outbox::OutboxError;

/// How long something may fail until that is told that is tried again within a second: leaders are elected, and servers start, in less.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections to Postgres.
pub(crate) const POSTGRES: Condition = Condition {
    name: "postgres",
    fails: "no connection to Postgres can be had",
    holds: "connections to Postgres can be had again",
    remedy: "see that the server of --database-url runs, can be reached from here and lets this role in; where it does, look at its load",
    patience: Duration::ZERO,
};
/// Whether it is the primary.
pub(crate) const POSTGRES_PRIMARY: Condition = Condition {
    name: "postgres_read_only",
    fails: "Postgres is a standby, or read-only: it is not used",
    holds: "Postgres takes writes again",
    remedy: "let --database-url lead to the primary, and see that default_transaction_read_only is off",
    patience: Duration::ZERO,
};
/// Whether the server lets more connections in.
pub(crate) const POSTGRES_CONNECTIONS: Condition = Condition {
    name: "postgres_connections",
    fails: "Postgres has no connection left for this worker: its pools give theirs up to each other",
    holds: "Postgres has connections for this worker again",
    remedy: "raise max_connections, or the limit of the role or database, or lower --queries and --command-slots",
    patience: Duration::ZERO,
};
/// What `/ready` tries.
pub(crate) const POSTGRES_WRITES: Condition = Condition {
    name: "postgres_writes",
    fails: "Postgres does not commit",
    holds: "Postgres commits again",
    remedy: "look at its log, its disk and its synchronous standbys",
    patience: Duration::ZERO,
};
/// Commands at Postgres.
pub(crate) const COMMITS: Condition = Condition {
    name: "commits",
    fails: "Postgres does not carry out commands: they are tried again until their time is up",
    holds: "Postgres carries commands out again",
    remedy: "look at the log and the load of Postgres, and for sessions that hold locks",
    patience: PATIENCE,
};
/// The beginning of a worker.
pub(crate) const START: Condition = Condition {
    name: "start",
    fails: "the worker cannot serve yet",
    holds: "the worker can serve",
    remedy: "mend what the error says; it is tried again by itself",
    patience: Duration::ZERO,
};
/// Events on their way into the stream.
pub(crate) const PUBLISHING: Condition = Condition {
    name: "publishing",
    fails: "JetStream does not take events: they wait in the outbox",
    holds: "JetStream takes events again",
    remedy: "see that the stream CONFAB_EVENTS has a leader and room and that this process may publish to it; a server whose disk was full \
        may have to be restarted",
    patience: PATIENCE,
};
/// What an operator is to do when the stream does not take what is committed.
pub(crate) const LINGERING_REMEDY: &str = "Find out why JetStream does not take events: the worker's log says it, and `confab doctor`. See storage and limits \
    of the server and the account, whether the stream CONFAB_EVENTS has a leader, and whether the worker may publish confab.v1.event.>. A stream \
    that stays in error after there is room again needs a restart of its nats-server.";
/// Commits that are not in the stream.
pub(crate) const EVENTS_LINGER: Condition = Condition {
    name: "events_linger",
    fails: "the stream of events does not take what is committed: gateways read it from workers",
    holds: "the stream of events takes again what is committed",
    remedy: LINGERING_REMEDY,
    patience: PATIENCE,
};
/// The relay of what lingers.
pub(crate) const RELAY: Condition = Condition {
    name: "relay",
    fails: "the relay cannot work on the outbox: what lingers there is not published",
    holds: "the relay works on the outbox again",
    remedy: "look at the log of Postgres",
    patience: PATIENCE,
};
/// Marks in the outbox.
pub(crate) const MARKING: Condition = Condition {
    name: "marking",
    fails: "what was published cannot be marked in the outbox: it is published again",
    holds: "what was published is marked in the outbox again",
    remedy: "see that the stream CONFAB_EVENTS has a leader, and look at the log of Postgres",
    patience: PATIENCE,
};
/// The comparison of stream and outbox.
pub(crate) const VERIFICATION: Condition = Condition {
    name: "verification",
    fails: "the stream cannot be compared with the outbox: nothing is marked as published meanwhile",
    holds: "the stream was compared with the outbox again",
    remedy: "see that JetStream is on and has a leader and room for the stream CONFAB_EVENTS, and that this process may use it",
    patience: PATIENCE,
};
/// The deletion of what is over.
pub(crate) const SWEEP: Condition = Condition {
    name: "sweep",
    fails: "rows that are over cannot be deleted",
    holds: "rows that are over are deleted again",
    remedy: "look at the log of Postgres",
    patience: Duration::ZERO,
};
/// All of them.
pub const CONDITIONS: &[Condition] = &[
    POSTGRES,
    POSTGRES_PRIMARY,
    POSTGRES_CONNECTIONS,
    POSTGRES_WRITES,
    COMMITS,
    START,
    PUBLISHING,
    EVENTS_LINGER,
    RELAY,
    MARKING,
    VERIFICATION,
    SWEEP,
];

/// How often it is looked whether what failed has gone well for long enough since.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// Says that a condition holds again also where nothing is tried any more, until `stop`.
pub(crate) async fn settle(monitor: Arc<Monitor>, stop: CancellationToken) {
    let mut ticks = interval(SETTLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        monitor.settle();
    }
}

/// Notes a failure of work on the outbox. While NATS is away, or no connection to Postgres can be had, that is told instead, once.
pub(crate) fn outbox_failed(bus: &Bus, monitor: &Monitor, error: &OutboxError) {
    match error {
        OutboxError::Postgres(sqlx::Error::PoolTimedOut) => {}
        OutboxError::Postgres(_) => monitor.failed(error),
        OutboxError::Bus(_) => bus.failed(monitor, error),
    }
}
