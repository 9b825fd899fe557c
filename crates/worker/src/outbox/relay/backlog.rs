//! What lingers: which rows, whose they are now, and since when this worker has seen them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::database::Pool;
use crate::outbox::on;

/// A row that was not published for so long lingers.
const LINGERING: Duration = Duration::from_secs(1);
/// How soon what was claimed and is still there may be claimed again: claims are published and marked well within this.
const PASS: Duration = Duration::from_secs(2);
/// The lingering rows are counted up to here.
const MAX_COUNTED: i64 = 10_000;

/// The highest ids of outbox rows that this worker has seen, each with when.
///
/// Ids are drawn in order, so that a row whose id is not above one seen a second ago is a second old, by this worker's own clock: no clock
/// of Postgres, of its standby or of another worker decides. A row that was drawn then and committed only now is relayed a moment early,
/// which JetStream recognizes.
#[derive(Debug, Default)]
pub(super) struct Ages {
    seen: VecDeque<(Instant, i64)>,
    lingering: Option<i64>,
}

impl Ages {
    /// The highest id is `top` now.
    pub(super) fn note(&mut self, top: i64, now: Instant) {
        if self.seen.back().is_some_and(|(_, last)| *last > top) {
            // Another Postgres, with less: what this worker knows of ids is void.
            self.seen.clear();
            self.lingering = None;
        }
        self.seen.push_back((now, top));
        while let Some((at, id)) = self.seen.front().copied() {
            if now.duration_since(at) < LINGERING {
                break;
            }
            self.lingering = Some(id);
            self.seen.pop_front();
        }
    }

    /// Rows up to this id linger, where they are not published; none before this worker has looked for so long.
    pub(super) const fn lingering(&self) -> Option<i64> {
        self.lingering
    }
}

/// The pass over what lingers, as this worker has seen it.
#[derive(Debug)]
pub(super) struct Pass {
    number: i64,
    since: Instant,
}

impl Pass {
    pub(super) const fn new(now: Instant) -> Self {
        let number = -1;
        Self { number, since: now }
    }

    pub(super) const fn note(&mut self, number: i64, now: Instant) {
        if self.number != number {
            self.number = number;
            self.since = now;
        }
    }

    /// Whether what was claimed at its beginning and is still there may be claimed again.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= PASS
    }

    pub(super) const fn number(&self) -> i64 {
        self.number
    }
}

/// What a look at the outbox finds.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Look {
    /// The highest id there is; 0 for none.
    pub(super) top: i64,
    /// How many rows linger, counted up to a bound.
    pub(super) lingering: i64,
    /// How many rows were stepped over, counted up to a bound.
    pub(super) stepped_over: i64,
    pub(super) pass: i64,
}

pub(super) async fn look(pool: &Pool, up_to: Option<i64>) -> Result<Look, sqlx::Error> {
    on(pool, async |connection| sqlx::query_as(
        "select coalesce((select id from outbox order by id desc limit 1), 0) as top, \
            (select count(*) from (select from outbox where published_at is null and attempts = 0 and id <= $1 limit $2) l) as lingering, \
            (select count(*) from (select from outbox where published_at is null and attempts > 0 limit $2) s) as stepped_over, \
            (select pass from outbox_relay) as pass",
    )
    .bind(up_to.unwrap_or(-1))
    .bind(MAX_COUNTED)
    .fetch_one(connection).await)
    .await
}

/// A run of ids that is this relay's: above `after`, up to `up_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Claim {
    pub(super) after: i64,
    pub(super) up_to: i64,
}

/// Takes the next rows that linger, up to an id; none when all of this pass are taken, or another relay takes some in this moment.
///
/// The claim is a statement of its own, so that who stops behind it holds no lock.
pub(super) async fn claim(
    pool: &Pool,
    up_to: i64,
    rows: i64,
) -> Result<Option<Claim>, sqlx::Error> {
    on(pool, async |connection| sqlx::query_as(
        "with mine as materialized (select position from outbox_relay where singleton for update skip locked), \
         next as materialized (select max(n.id) as id from (select id from outbox where published_at is null and attempts = 0 \
            and id > (select position from mine) and id <= $1 order by id limit $2) n) \
         update outbox_relay r set position = next.id from mine, next where r.singleton and next.id is not null \
         returning mine.position as after, next.id as up_to",
    )
    .bind(up_to)
    .bind(rows)
    .fetch_optional(connection).await)
    .await
}

/// Ends a pass, if nobody has: rows that were claimed and are still there are claimed again.
pub(super) async fn begin_pass(pool: &Pool, former: i64) -> Result<(), sqlx::Error> {
    on(pool, async |connection| {
        sqlx::query(
            "update outbox_relay set position = 0, pass = pass + 1 where singleton and pass = $1",
        )
        .bind(former)
        .execute(connection)
        .await
    })
    .await?;
    Ok(())
}

/// Gives a claim back: NATS took nothing of it.
pub(super) async fn give_back(pool: &Pool, claim: Claim) -> Result<(), sqlx::Error> {
    on(pool, async |connection| {
        sqlx::query("update outbox_relay set position = least(position, $1) where singleton")
            .bind(claim.after)
            .execute(connection)
            .await
    })
    .await?;
    Ok(())
}

/// A row of the outbox, with the keys of its events.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) attempts: i32,
    pub(super) conversation_ids: Vec<Uuid>,
    pub(super) seqs: Vec<i64>,
}

impl Row {
    /// The keys of its events.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = (Uuid, i64)> + '_ {
        let seqs = self.seqs.iter().copied();
        self.conversation_ids.iter().copied().zip(seqs)
    }
}

pub(super) async fn claimed(pool: &Pool, claim: Claim) -> Result<Vec<Row>, sqlx::Error> {
    on(pool, async |connection| {
        sqlx::query_as(
            "select id, attempts, conversation_ids, seqs from outbox \
         where published_at is null and attempts = 0 and id > $1 and id <= $2 order by id",
        )
        .bind(claim.after)
        .bind(claim.up_to)
        .fetch_all(connection)
        .await
    })
    .await
}

/// Rows that were stepped over, behind an id.
pub(super) async fn stepped_over(
    pool: &Pool,
    after: i64,
    rows: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    on(pool, async |connection| {
        sqlx::query_as(
            "select id, attempts, conversation_ids, seqs from outbox \
         where published_at is null and attempts > 0 and id > $1 order by id limit $2",
        )
        .bind(after)
        .bind(rows)
        .fetch_all(connection)
        .await
    })
    .await
}

/// Steps over a row, unless another relay has; says whether this one did.
pub(super) async fn step_over(pool: &Pool, row: &Row) -> Result<bool, sqlx::Error> {
    let stepped = on(pool, async |connection| sqlx::query(
        "update outbox set attempts = attempts + 1 where id = $1 and attempts = $2 and published_at is null",
    )
    .bind(row.id)
    .bind(row.attempts)
    .execute(connection).await)
    .await?;
    Ok(stepped.rows_affected() > 0)
}

/// Forgets a row none of whose events is there any more.
pub(super) async fn forget(pool: &Pool, row: i64) -> Result<bool, sqlx::Error> {
    let forgotten = on(pool, async |connection| {
        sqlx::query("delete from outbox where id = $1 and published_at is null")
            .bind(row)
            .execute(connection)
            .await
    })
    .await?;
    Ok(forgotten.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_lingers_after_second_of_own_clock() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut ages = Ages::default();
        ages.note(7, at(0));
        assert_eq!(ages.lingering(), None, "it may have been drawn just now");
        ages.note(9, at(500));
        ages.note(9, at(999));
        assert_eq!(ages.lingering(), None);
        ages.note(12, at(1000));
        assert_eq!(ages.lingering(), Some(7));
        ages.note(12, at(1600));
        assert_eq!(ages.lingering(), Some(9));
        // A worker that stood still comes back: all that it has seen before lingers.
        ages.note(50, at(60_000));
        assert_eq!(ages.lingering(), Some(12));
        // Another Postgres, which has less.
        ages.note(3, at(60_250));
        assert_eq!(ages.lingering(), None);
        ages.note(4, at(61_300));
        assert_eq!(ages.lingering(), Some(3));
    }
}
