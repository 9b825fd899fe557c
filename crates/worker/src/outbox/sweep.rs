//! Deletes what is over: outbox rows long published, keys and revocations that expired. A task of its own for each, so that none
//! waits for another, nor anything else for them.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::condition::Monitor;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{OutboxError, Standing, on};
use crate::conditions::{SWEEP, outbox_failed};
use crate::database::Pool;
use crate::metrics::Metrics;

/// How often it is looked whether anything is over.
const PERIOD: Duration = Duration::from_secs(5);
/// Rows deleted in one statement.
const STEP_ROWS: i64 = 10_000;
/// Behind a step that found its fill a sweep rests for so many times as long as the step took: what is left keeps half of the time.
const REST: u32 = 1;

/// What is swept: a statement that deletes up to $1 rows from a time on, the oldest first, and says how many and up to when; and one that
/// says for how many seconds the oldest has been over.
///
/// Each finds its rows by an index on the time, up to a time that is the same for the whole statement: a time that may change within it,
/// as that of `clock_timestamp()`, would be no condition of the index, and the whole table be read. The time is that of the Postgres that
/// answers; one that follows it with another clock sweeps early or late by their difference.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) table: &'static str,
    pub(super) delete: &'static str,
    pub(super) behind: &'static str,
    /// Whether what is swept is needed while the stream is in doubt.
    is_outbox: bool,
}

/// The sweep of a table whose rows say when they expire.
macro_rules! by_expiry {
    ($table:literal) => {
        Sweep {
            table: $table,
            delete: concat!(
                "with over as materialized (select ctid, expires_at as at from ",
                $table,
                " where expires_at < statement_timestamp() and expires_at >= $2 order by expires_at limit $1 \
                    for update skip locked), \
                gone as (delete from ",
                $table,
                " where ctid = any(array(select ctid from over))) select count(*) as rows, max(at) as up_to from over"
            ),
            behind: concat!(
                "select extract(epoch from statement_timestamp() - expires_at)::float8 from ",
                $table,
                " where expires_at < statement_timestamp() order by expires_at limit 1"
            ),
            is_outbox: false,
        }
    };
}

/// What was published is kept for five minutes, well past JetStream's sync interval of two: it may be lost until then.
pub(crate) const OUTBOX: Sweep = Sweep {
    table: "outbox",
    delete: "with over as materialized (select ctid, published_at as at from outbox \
            where published_at < statement_timestamp() - interval '5 minutes' and published_at >= $2 \
            order by published_at limit $1 for update skip locked), \
        gone as (delete from outbox where ctid = any(array(select ctid from over))) \
        select count(*) as rows, max(at) as up_to from over",
    behind: "select extract(epoch from statement_timestamp() - interval '5 minutes' - published_at)::float8 from outbox \
        where published_at < statement_timestamp() - interval '5 minutes' order by published_at limit 1",
    is_outbox: true,
};
pub(crate) const CREATION_KEYS: Sweep = by_expiry!("creation_keys");
pub(crate) const SETTLED_KEYS: Sweep = by_expiry!("settled_keys");
pub(crate) const REVOCATIONS: Sweep = by_expiry!("revocations");

/// All that is swept.
pub(crate) const ALL: [&Sweep; 4] = [&OUTBOX, &CREATION_KEYS, &SETTLED_KEYS, &REVOCATIONS];

#[derive(Debug, sqlx::FromRow)]
struct Step {
    rows: i64,
    up_to: Option<OffsetDateTime>,
}

/// Sweeps until `stop`.
pub(crate) async fn run(
    what: &'static Sweep,
    (bus, pool): (Bus, Pool),
    standing: Standing,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let monitor = Monitor::about(SWEEP, what.table.to_owned());
    loop {
        // Workers that began together do not sweep together.
        let period = PERIOD.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        if stop.run_until_cancelled(sleep(period)).await.is_none() {
            return;
        }
        // While NATS is away, and until its stream was compared, what was published is kept: it may be lost.
        let may_go_on = || !stop.is_cancelled() && (!what.is_outbox || standing.now().is_some());
        match delete_all(what, &pool, &metrics, may_go_on).await {
            Ok(()) => monitor.holds(),
            Err(error) => outbox_failed(&bus, &monitor, &error),
        }
    }
}

/// Deletes all that is over, step by step, while it may go on.
pub(crate) async fn delete_all(
    what: &Sweep,
    pool: &Pool,
    metrics: &Metrics,
    may_go_on: impl Fn() -> bool,
) -> Result<(), OutboxError> {
    // What was deleted before this has no place in the index that is looked at once more.
    let mut from = OffsetDateTime::UNIX_EPOCH;
    while may_go_on() {
        let began = Instant::now();
        let step: Step = on(pool, async |connection| {
            let delete = sqlx::query_as(what.delete).bind(STEP_ROWS).bind(from);
            delete.fetch_one(connection).await
        })
        .await?;
        metrics.swept(what.table, step.rows);
        if step.rows < STEP_ROWS {
            break;
        }
        from = step.up_to.unwrap_or(from);
        sleep(began.elapsed() * REST).await;
    }
    let behind: Option<f64> = on(pool, async |connection| {
        sqlx::query_scalar(what.behind)
            .fetch_optional(connection)
            .await
    })
    .await?;
    metrics.sweep_behind(what.table, behind.unwrap_or_default());
    Ok(())
}
