//! Whether the stream still has what it acknowledged: a server that dies before its lazy fsync loses writes, and a stream
//! may be erased or put back by hand. What it lost is published again.

use std::time::Duration;

use confab_bus::{Bus, BusError, Link, StreamState};
use confab_protocol::condition::Monitor;
use confab_protocol::ids::EventId;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{Mark, OutboxError, Standing, on};
use crate::conditions::{VERIFICATION, outbox_failed};
use crate::database::Pool;
use crate::metrics::Metrics;

const PERIOD: Duration = Duration::from_secs(5);
/// How soon a comparison that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// Marks read at once on the way down.
const MARKS: i64 = 500;
/// So many marks that hold, one after the other, end the way down.
const HELD_MARKS: usize = 200;
/// Marks taken back in one statement.
const STEP_ROWS: usize = 10_000;

/// Compares at the start, on every reconnect, whenever the stream is in doubt, and every 5 s until `stop`.
pub(crate) async fn run(
    bus: Bus,
    pool: Pool,
    standing: Standing,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let monitor = Monitor::new(VERIFICATION);
    let mut link = bus.connection();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = link.changed() => {}
            () = standing.doubted() => {}
            _ = ticks.tick() => {}
        }
        let Link { connected, epoch } = *link.borrow_and_update();
        if !connected {
            continue;
        }
        let verify = verify(&bus, &pool, (&standing, epoch), &metrics);
        match stop.run_until_cancelled(Box::pin(verify)).await {
            Some(Ok(())) => monitor.holds(),
            Some(Err(error)) => {
                outbox_failed(&bus, &monitor, &error);
                if let OutboxError::Bus(error) = &error {
                    standing.failed(error);
                }
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
    (standing, epoch): (&Standing, u64),
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
        standing.forget();
        unmark(bus, pool, &stream).await?;
        metrics.found_break();
    }
    standing.holds(created, epoch);
    if !is_whole {
        bus.announce_break().await?;
    }
    Ok(())
}

/// Gives what the stream has lost, and what is marked as published into another, to the relay.
///
/// In steps, each a statement of its own: Postgres ends a long one, and nothing waits for NATS in a transaction. The highest mark goes last,
/// so that whoever compares meanwhile, or when this worker dies, finds that something is missing. Several workers may do so at once.
async fn unmark(bus: &Bus, pool: &Pool, stream: &StreamState) -> Result<(), OutboxError> {
    let created = micros(stream.created);
    let mut commits = unmark_range(pool, OTHER_STREAMS, created, 0).await?;
    for lost in lost_below(bus, pool, stream).await?.chunks(STEP_ROWS) {
        commits += unmark_each(pool, created, lost).await?;
    }
    commits += unmark_range(pool, BEHIND_THE_END, created, stream.last.cast_signed()).await?;
    warn!(
        commits,
        "the stream lost what it had acknowledged; it is published again"
    );
    Ok(())
}

const UNMARK: &str = "update outbox set published_at = null, stream_created = null, stream_seq = null, stream_event_id = null";
/// Marks into other streams than the one made at $1.
const OTHER_STREAMS: &str = "stream_created < $1 or stream_created > $1";
/// Marks into this stream above what it has.
const BEHIND_THE_END: &str = "stream_created = $1 and stream_seq > $2";

/// Takes the marks of a range back, the lowest first.
async fn unmark_range(
    pool: &Pool,
    range: &'static str,
    created: OffsetDateTime,
    last: i64,
) -> Result<u64, OutboxError> {
    let text = format!(
        "{UNMARK} where id = any(array(select id from outbox where published_at is not null and ({range}) and stream_seq > $2 \
         order by stream_created, stream_seq limit $3))"
    );
    let mut commits = 0;
    loop {
        let step = on(pool, async |connection| {
            sqlx::query(sqlx::AssertSqlSafe(text.as_str()))
                .bind(created)
                .bind(last)
                .bind(i64::try_from(STEP_ROWS).unwrap_or(i64::MAX))
                .execute(connection)
                .await
        })
        .await?
        .rows_affected();
        commits += step;
        if step == 0 {
            return Ok(commits);
        }
    }
}

/// Takes these marks back, where they are still the same.
async fn unmark_each(
    pool: &Pool,
    created: OffsetDateTime,
    lost: &[Marked],
) -> Result<u64, OutboxError> {
    let text = format!(
        "{UNMARK} where id = any(array(select o.id from unnest($2::bigint[], $3::uuid[]) as m(seq, event) \
         cross join lateral (select o.id from outbox o where o.published_at is not null and o.stream_created = $1 \
            and o.stream_seq = m.seq and o.stream_event_id = m.event) o))"
    );
    let step = on(pool, async |connection| {
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(created)
            .bind(lost.iter().map(|mark| mark.stream_seq).collect::<Vec<_>>())
            .bind(
                lost.iter()
                    .map(|mark| mark.stream_event_id)
                    .collect::<Vec<_>>(),
            )
            .execute(connection)
            .await
    })
    .await?;
    Ok(step.rows_affected())
}

/// Goes down the marks of this stream, from its end, to where so many hold one after the other; gives those that do not, the lowest
/// first. Marks that hold may stand above lost ones, where a stream grew over its lost tail while others marked.
async fn lost_below(
    bus: &Bus,
    pool: &Pool,
    stream: &StreamState,
) -> Result<Vec<Marked>, OutboxError> {
    let (mut up_to, mut held, mut lost) = (stream.last.cast_signed(), 0, Vec::new());
    while held < HELD_MARKS {
        let marks: Vec<Marked> = on(pool, async |connection| sqlx::query_as(
            "select stream_created, stream_seq, stream_event_id from outbox \
             where stream_created = $1 and stream_seq <= $2 and published_at is not null order by stream_seq desc limit $3",
        )
        .bind(micros(stream.created))
        .bind(up_to)
        .bind(MARKS)
        .fetch_all(connection).await)
        .await?;
        let Some(last) = marks.last() else {
            break;
        };
        up_to = last.stream_seq - 1;
        for marked in &marks {
            if holds(bus, stream, marked).await? {
                held += 1;
            } else {
                held = 0;
                lost.push(*marked);
            }
            if held == HELD_MARKS {
                break;
            }
        }
    }
    lost.reverse();
    Ok(lost)
}

/// A commit as it was marked.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Marked {
    stream_created: OffsetDateTime,
    stream_seq: i64,
    stream_event_id: Uuid,
}

impl From<&Mark> for Marked {
    fn from(mark: &Mark) -> Self {
        Self {
            stream_created: mark.stream.created,
            stream_seq: mark.stream_seq.cast_signed(),
            stream_event_id: mark.event.0,
        }
    }
}

/// The mark of this stream with the highest sequence.
pub(super) async fn top_of(
    pool: &Pool,
    created: OffsetDateTime,
) -> Result<Option<Marked>, OutboxError> {
    Ok(on(pool, async |connection| {
        sqlx::query_as(
            "select stream_created, stream_seq, stream_event_id from outbox \
         where published_at is not null and stream_created = $1 order by stream_seq desc limit 1",
        )
        .bind(created)
        .fetch_optional(connection)
        .await
    })
    .await?)
}

/// The mark with the highest sequence, not the one that was made last, and behind it the one of the oldest stream: while one worker
/// looks for what an erased stream had, another may have published into the new one.
async fn ends(pool: &Pool) -> Result<Vec<Marked>, OutboxError> {
    Ok(on(pool, async |connection| sqlx::query_as(
        "(select stream_created, stream_seq, stream_event_id from outbox where published_at is not null \
            order by stream_created desc, stream_seq desc limit 1) \
         union all \
         (select stream_created, stream_seq, stream_event_id from outbox where published_at is not null \
            order by stream_created, stream_seq limit 1)",
    )
    .fetch_all(connection).await)
    .await?)
}

/// Whether the stream has the marked event where it was acknowledged, or had it until it expired.
pub(super) async fn holds(
    bus: &Bus,
    stream: &StreamState,
    marked: &Marked,
) -> Result<bool, OutboxError> {
    let seq = marked.stream_seq.cast_unsigned();
    if marked.stream_created != micros(stream.created) || seq > stream.last {
        return Ok(false);
    }
    Ok(seq < stream.first || bus.event_id_at(seq).await? == Some(EventId(marked.stream_event_id)))
}

/// Postgres keeps microseconds, NATS nanoseconds.
fn micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}
