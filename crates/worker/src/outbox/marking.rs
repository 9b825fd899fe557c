//! Commits are marked as published: only while the stream has all that was marked before.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::chain::chain;
use time::OffsetDateTime;
use tracing::debug;

use super::verify::{Marked, holds, top_of};
use super::{Compared, Mark, OutboxError, Standing, on};
use crate::database::{Pool, READ_COMMITTED, bounded};

/// A stream that loses its tail is away for longer than this before it takes new events: its server starts, or another is elected. So
/// of the acknowledgements of one such slice of time the last is lost where any is.
const SLICE: Duration = Duration::from_millis(100);
/// Acknowledgements of more slices than this wait only while Postgres is away: the oldest are left to the relay.
const MAX_SLICES: usize = 50;

/// Marks commits as published; says whether it did. What cannot be marked is published once more by the relay.
///
/// Before that the stream is asked for the event that is marked with the highest sequence, and for those of these marks that are the
/// first to go with a lost tail. Were marks written above a lost one, no comparison of the highest would find it.
pub(super) async fn write_marks(
    bus: &Bus,
    pool: &Pool,
    mut marks: Vec<Mark>,
    standing: &Standing,
) -> bool {
    let Some(stream) = standing.now() else {
        return false;
    };
    marks.retain(|mark| mark.stream == stream);
    let witnesses = witnesses(&mut marks);
    // Who marks the same rows locks them in the same order.
    marks.sort_unstable_by_key(|mark| mark.row);
    if marks.is_empty() {
        return true;
    }
    let asked = Instant::now();
    match are_held(bus, pool, stream, &witnesses).await {
        Ok(true) => {}
        Ok(false) => {
            standing.doubt(stream, "what is marked as published is not in the stream");
            return false;
        }
        Err(error) => {
            standing.not_marked(bus, &error);
            return false;
        }
    }
    match bounded(write(pool, &marks, standing, stream)).await {
        Ok(written) if asked.elapsed() < SLICE => {
            if written {
                standing.marked();
            }
            written
        }
        // Postgres was slow: what the stream lost meanwhile, others may have marked over.
        Ok(written) => written && still_held(bus, pool, stream, &marks, &witnesses, standing).await,
        Err(error) => {
            standing.not_marked(bus, &error.into());
            false
        }
    }
}

/// Of each slice of time the mark with the highest sequence. Marks of too many slices lose the oldest.
fn witnesses(marks: &mut Vec<Mark>) -> Vec<Marked> {
    marks.sort_unstable_by_key(|mark| mark.at);
    let mut slices: Vec<(usize, Instant, Mark)> = Vec::new();
    for (place, mark) in marks.iter().enumerate() {
        match slices.last_mut() {
            Some((_, from, highest)) if mark.at.duration_since(*from) < SLICE => {
                if mark.stream_seq > highest.stream_seq {
                    *highest = *mark;
                }
            }
            _ => slices.push((place, mark.at, *mark)),
        }
    }
    let dropped = slices.len().saturating_sub(MAX_SLICES);
    if let Some((first, ..)) = slices.get(dropped).filter(|_| dropped > 0) {
        marks.drain(..*first);
    }
    let kept = slices.iter().skip(dropped);
    kept.map(|(_, _, mark)| Marked::from(mark)).collect()
}

async fn are_held(
    bus: &Bus,
    pool: &Pool,
    stream: Compared,
    witnesses: &[Marked],
) -> Result<bool, OutboxError> {
    let top = top_of(pool, stream.created).await?;
    let state = bus.stream_state().await?;
    for marked in witnesses.iter().chain(&top) {
        if !holds(bus, &state, marked).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn still_held(
    bus: &Bus,
    pool: &Pool,
    stream: Compared,
    marks: &[Mark],
    witnesses: &[Marked],
    standing: &Standing,
) -> bool {
    let held = are_held(bus, pool, stream, witnesses).await;
    if matches!(held, Ok(true)) {
        return true;
    }
    standing.doubt(stream, "what was just marked is not in the stream");
    if let Err(error) = unmark(pool, marks).await {
        debug!(error = %chain(&error), "marks could not be taken back");
    }
    false
}

async fn unmark(pool: &Pool, marks: &[Mark]) -> Result<(), sqlx::Error> {
    on(pool, async |connection| sqlx::query(
        "update outbox o set published_at = null, stream_created = null, stream_seq = null, stream_event_id = null \
         from unnest($1::bigint[], $2::bigint[]) as m(row, seq) where o.id = m.row and o.stream_seq = m.seq",
    )
    .bind(marks.iter().map(|mark| mark.row).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.stream_seq.cast_signed()).collect::<Vec<_>>())
    .execute(connection).await)
    .await?;
    Ok(())
}

async fn write(
    pool: &Pool,
    marks: &[Mark],
    standing: &Standing,
    stream: Compared,
) -> Result<bool, sqlx::Error> {
    let mut tx = pool.begin(READ_COMMITTED).await?;
    mark(&mut tx, marks, stream.created).await?;
    // Postgres may have been slow: what was compared meanwhile, on the next connection, did not know of these marks.
    if standing.now() == Some(stream) {
        tx.commit().await?;
        return Ok(true);
    }
    tx.rollback().await?;
    Ok(false)
}

pub(super) async fn mark(
    tx: &mut sqlx::PgConnection,
    marks: &[Mark],
    created: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    // A mark that is lost costs a second publishing, which JetStream recognizes: it need not wait for the disk.
    sqlx::query("set local synchronous_commit = off")
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "update outbox o set published_at = clock_timestamp(), stream_created = $4, stream_seq = m.seq, \
            stream_event_id = m.event \
         from unnest($1::bigint[], $2::bigint[], $3::uuid[]) as m(row, seq, event) where o.id = m.row and o.published_at is null",
    )
    .bind(marks.iter().map(|mark| mark.row).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.stream_seq.cast_signed()).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.event.0).collect::<Vec<_>>())
    .bind(created)
    .execute(&mut *tx)
    .await?;
    Ok(())
}
