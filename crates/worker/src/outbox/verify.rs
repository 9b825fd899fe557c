//! Whether the stream still has what it acknowledged: a server that dies before its lazy fsync loses writes, and a stream
//! may be erased or put back by hand. What it lost is published again.

use std::time::Duration;

use confab_bus::{Bus, BusError, Link, StreamState};
use confab_protocol::ids::EventId;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{Compared, OutboxError};
use crate::database::{Pool, READ_COMMITTED};
use crate::metrics::Metrics;

const PERIOD: Duration = Duration::from_secs(5);
/// How soon a comparison that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// The key of the advisory lock under which one worker goes down the marks.
pub(super) const LOCK: i64 = 0x636f_6e66_6162;
/// Marks read at once on the way down.
const MARKS: i64 = 500;

/// Compares at the start, on every reconnect and every 5 s until `stop`.
pub(crate) async fn run(
    bus: Bus,
    pool: Pool,
    compared: watch::Sender<Option<Compared>>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut link = bus.connection();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = link.changed() => {}
            _ = ticks.tick() => {}
        }
        let Link { connected, epoch } = *link.borrow_and_update();
        if !connected {
            continue;
        }
        let verify = verify(&bus, &pool, (&compared, epoch), &metrics);
        match stop.run_until_cancelled(Box::pin(verify)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                debug!(%error, "the stream could not be compared with what was published");
                ticks.reset_after(AGAIN);
            }
            None => return,
        }
    }
}

/// Compares on the connection of this epoch. Who marks commits knows of the stream only when nothing is missing, or what is missing is
/// no longer marked.
pub(super) async fn verify(
    bus: &Bus,
    pool: &Pool,
    (compared, epoch): (&watch::Sender<Option<Compared>>, u64),
    metrics: &Metrics,
) -> Result<(), OutboxError> {
    // The marks first: what is acknowledged while the stream is asked would look lost to who asks for marks behind it.
    let ends = ends(pool).await?;
    let stream = match bus.stream_state().await {
        Err(BusError::NoStream) => bus.provision().await?,
        stream => stream?,
    };
    let created = micros(stream.created);
    let is_of_it = ends.iter().all(|marked| marked.stream_created == created);
    let is_whole = match ends.iter().max_by_key(|marked| marked.stream_seq) {
        Some(top) => is_of_it && holds(bus, &stream, top).await?,
        None => true,
    };
    if !is_whole {
        compared.send_replace(None);
        unmark(bus, pool, &stream).await?;
        metrics.found_break();
    }
    compared.send_replace(Some(Compared { created, epoch }));
    if !is_whole {
        bus.announce_break().await?;
    }
    Ok(())
}

/// Gives what the stream has lost, and what is marked as published into another, to the relay.
async fn unmark(bus: &Bus, pool: &Pool, stream: &StreamState) -> Result<(), OutboxError> {
    let mut tx = pool.begin(READ_COMMITTED).await?;
    let (locked,): (bool,) = sqlx::query_as("select pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *tx)
        .await?;
    if !locked {
        return Err(OutboxError::Busy);
    }
    let kept = first_that_holds(bus, &mut tx, stream).await?;
    let lost = sqlx::query(
        "update outbox set published_at = null, stream_created = null, stream_seq = null, stream_event_id = null \
         where published_at is not null and (stream_created <> $1 or stream_seq > $2)",
    )
    .bind(micros(stream.created))
    .bind(kept)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    warn!(
        commits = lost,
        "the stream lost what it had acknowledged; it is published again"
    );
    Ok(())
}

/// A commit as it was marked.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Marked {
    stream_created: OffsetDateTime,
    stream_seq: i64,
    stream_event_id: Uuid,
}

/// The mark with the highest sequence, not the one that was made last, and behind it the one of the oldest stream: while one worker
/// looks for what an erased stream had, another may have published into the new one.
async fn ends(pool: &Pool) -> Result<Vec<Marked>, OutboxError> {
    let mut connection = pool.acquire().await?;
    let ends = sqlx::query_as(
        "(select stream_created, stream_seq, stream_event_id from outbox where published_at is not null \
            order by stream_created desc, stream_seq desc limit 1) \
         union all \
         (select stream_created, stream_seq, stream_event_id from outbox where published_at is not null \
            order by stream_created, stream_seq limit 1)",
    )
    .fetch_all(&mut *connection)
    .await?;
    connection.release();
    Ok(ends)
}

/// Whether the stream has the marked event where it was acknowledged, or had it until it expired.
async fn holds(bus: &Bus, stream: &StreamState, marked: &Marked) -> Result<bool, OutboxError> {
    let seq = marked.stream_seq.cast_unsigned();
    if marked.stream_created != micros(stream.created) || seq > stream.last {
        return Ok(false);
    }
    Ok(seq < stream.first || bus.event_id_at(seq).await? == Some(EventId(marked.stream_event_id)))
}

/// Goes down the marks of this stream to the first one that still holds; 0 when none does.
async fn first_that_holds(
    bus: &Bus,
    tx: &mut sqlx::PgConnection,
    stream: &StreamState,
) -> Result<i64, OutboxError> {
    let mut below = i64::MAX;
    loop {
        let marks: Vec<Marked> = sqlx::query_as(
            "select stream_created, stream_seq, stream_event_id from outbox \
             where stream_created = $1 and stream_seq < $2 and published_at is not null order by stream_seq desc limit $3",
        )
        .bind(micros(stream.created))
        .bind(below)
        .bind(MARKS)
        .fetch_all(&mut *tx)
        .await?;
        let Some(last) = marks.last() else {
            return Ok(0);
        };
        below = last.stream_seq;
        for marked in &marks {
            if holds(bus, stream, marked).await? {
                return Ok(marked.stream_seq);
            }
        }
    }
}

/// Postgres keeps microseconds, NATS nanoseconds.
fn micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}
