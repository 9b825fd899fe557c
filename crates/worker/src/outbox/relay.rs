//! Publishes what lingers: commits whose worker died, or whose events JetStream did not take. One in every worker; they share what there
//! is by claims, and hold nothing that another waits for.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::lingering::{Key, SteppedOver};
use super::{OutboxError, Standing};
use crate::conditions::{RELAY, outbox_failed};
use crate::database::Pool;
use crate::metrics::Metrics;

mod backlog;
mod reading;
mod rows;

use backlog::{Ages, Claim, Pass, begin_pass, claim, claimed, give_back, look, stepped_over};
use reading::{ReadRow, read_first};
use rows::{Ended, Failures, HandedOver, RowEnd, hand_over};

const PERIOD: Duration = Duration::from_millis(250);
/// Rows claimed at once; fewer after a failure, so that little is published twice while NATS comes back.
const MAX_CLAIM_ROWS: i64 = 1000;
const MIN_CLAIM_ROWS: i64 = 20;
/// Runs of rows that were handed to NATS and are not marked yet.
const MAX_RUNS: usize = 3;
/// How often rows that were stepped over are looked at again.
const RETRY_PERIOD: Duration = Duration::from_secs(60);
/// Rows looked at again at once.
const RETRY_ROWS: i64 = 100;

/// A worker's relay.
#[derive(Debug)]
pub(super) struct Relay {
    bus: Bus,
    pool: Pool,
    standing: Standing,
    metrics: Metrics,
    ages: Ages,
    pass: Pass,
    claim_rows: i64,
    failures: Failures,
    /// Where it tells what it steps over.
    told: SteppedOver,
    retried: Instant,
    /// How often rows that were stepped over were looked at.
    retries: u32,
}

/// Relays until `stop`.
pub(super) async fn run(mut relay: Relay, stop: CancellationToken) {
    let monitor = Monitor::new(RELAY);
    let bus = relay.bus.clone();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A turn ends by itself: what it has begun is not dropped.
        match relay.turn(&stop).await {
            Ok(()) => monitor.holds(),
            Err(error) => outbox_failed(&bus, &monitor, &error),
        }
    }
}

impl Relay {
    pub(super) fn new(
        (bus, pool, standing): (Bus, Pool, Standing),
        metrics: Metrics,
        told: SteppedOver,
    ) -> Self {
        let now = Instant::now();
        Self {
            bus,
            pool,
            standing,
            metrics,
            ages: Ages::default(),
            pass: Pass::new(now),
            claim_rows: MAX_CLAIM_ROWS,
            failures: Failures::default(),
            told,
            retried: now,
            retries: 0,
        }
    }

    /// Looks at what lingers, and publishes it.
    pub(super) async fn turn(&mut self, stop: &CancellationToken) -> Result<(), OutboxError> {
        let look = look(&self.pool, self.ages.lingering()).await?;
        let now = Instant::now();
        self.ages.note(look.top, now);
        self.pass.note(look.pass, now);
        self.metrics.lingering(look.lingering, look.stepped_over);
        if self.standing.now().is_none() {
            return Ok(());
        }
        if look.lingering > 0 {
            self.drain(stop).await?;
        }
        if look.stepped_over > 0 && self.retried.elapsed() >= RETRY_PERIOD {
            self.retried = now;
            self.retry(stop).await?;
        }
        Ok(())
    }

    /// Publishes what lingers, claim after claim, until nothing is left to claim or NATS takes no more. Reading the next goes on while the
    /// last ones are acknowledged and marked.
    async fn drain(&mut self, stop: &CancellationToken) -> Result<(), OutboxError> {
        let Some(up_to) = self.ages.lingering() else {
            return Ok(());
        };
        let mut runs = JoinSet::new();
        let drained = self.claim_all(up_to, &mut runs, stop).await;
        while let Some(run) = runs.join_next().await {
            self.ended(run).await;
        }
        drained
    }

    async fn claim_all(
        &mut self,
        up_to: i64,
        runs: &mut JoinSet<Ended>,
        stop: &CancellationToken,
    ) -> Result<(), OutboxError> {
        while !stop.is_cancelled() {
            let Some(claim) = self.claim(up_to).await? else {
                return Ok(());
            };
            let relayed = self.relay(claim, runs).await;
            if !matches!(relayed, Ok(true)) {
                self.claim_rows = MIN_CLAIM_ROWS;
                give_back(&self.pool, claim).await?;
                return relayed.map(drop);
            }
            self.claim_rows = (self.claim_rows * 4).min(MAX_CLAIM_ROWS);
        }
        Ok(())
    }

    /// The next rows; where all of this pass are taken, and it is over, the first of the next.
    async fn claim(&mut self, up_to: i64) -> Result<Option<Claim>, OutboxError> {
        let taken = claim(&self.pool, up_to, self.claim_rows).await?;
        if taken.is_some() || !self.pass.is_over(Instant::now()) {
            return Ok(taken);
        }
        let former = self.pass.number();
        begin_pass(&self.pool, former).await?;
        self.pass.note(former + 1, Instant::now());
        Ok(claim(&self.pool, up_to, self.claim_rows).await?)
    }

    /// Publishes the rows of a claim; says whether NATS takes more.
    async fn relay(
        &mut self,
        claim: Claim,
        runs: &mut JoinSet<Ended>,
    ) -> Result<bool, OutboxError> {
        let rows = claimed(&self.pool, claim).await?;
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            while runs.len() >= MAX_RUNS
                && let Some(run) = runs.join_next().await
            {
                if !self.ended(run).await {
                    return Ok(false);
                }
            }
            let read = read_first(&self.pool, rest).await?;
            rest = rest.get(read.len()..).unwrap_or_default();
            let handed_over = hand_over(&self.bus, &self.standing, read).await;
            let takes_more = handed_over.takes_more;
            self.finish(handed_over, runs);
            if !takes_more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(&self, handed_over: HandedOver, runs: &mut JoinSet<Ended>) {
        let (bus, pool, standing) = (self.bus.clone(), self.pool.clone(), self.standing.clone());
        runs.spawn(async move { handed_over.finish(&bus, &pool, &standing).await });
    }

    /// A run of rows came to its end; says whether NATS took any of them.
    async fn ended(&mut self, run: Result<Ended, tokio::task::JoinError>) -> bool {
        let ended = match run {
            Ok(ended) => ended,
            Err(error) => {
                error!(error = %chain(&error), "relaying a run of commits died");
                return false;
            }
        };
        self.metrics.relayed(ended.relayed);
        let took_some = ended.relayed > 0 || ended.rows.iter().any(|(_, end)| end.is_own());
        for (row, end) in ended.rows {
            if let Err(error) = self.row_ended(&row, end, took_some).await {
                debug!(error = %chain(&error), "a row that cannot be published stays among the others");
            }
        }
        took_some
    }

    async fn row_ended(
        &mut self,
        row: &ReadRow,
        end: RowEnd,
        others_went: bool,
    ) -> Result<(), OutboxError> {
        match end {
            RowEnd::Published => {
                self.failures.forget(row.row.id);
                rows::report_missing(row, &self.metrics);
                Ok(())
            }
            RowEnd::Gone => rows::forget(&self.pool, row, &self.metrics).await,
            RowEnd::Away if !others_went || !self.failures.is_own(row.row.id) => Ok(()),
            RowEnd::Unreadable | RowEnd::Refused | RowEnd::Away => {
                if rows::step_over(&self.pool, row, &self.metrics).await? {
                    let keys = row.events.iter().map(Key::of).collect();
                    if self.told.try_send(keys).is_err() {
                        debug!("a commit that is stepped over is not announced");
                    }
                }
                Ok(())
            }
        }
    }

    /// Looks again at rows that were stepped over: each more rarely the more often that was for nothing.
    pub(super) async fn retry(&mut self, stop: &CancellationToken) -> Result<(), OutboxError> {
        self.retries = self.retries.wrapping_add(1);
        let mut after = 0;
        while !stop.is_cancelled() {
            let page = stepped_over(&self.pool, after, RETRY_ROWS).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            let is_due = |attempts: i32| {
                let exponent = u32::try_from(attempts - 1).unwrap_or_default().min(6);
                self.retries.is_multiple_of(1 << exponent)
            };
            let due: Vec<_> = page
                .into_iter()
                .filter(|row| is_due(row.attempts))
                .collect();
            let mut runs = JoinSet::new();
            let mut rest = due.as_slice();
            while !rest.is_empty() {
                let read = read_first(&self.pool, rest).await?;
                rest = rest.get(read.len()..).unwrap_or_default();
                let handed_over = hand_over(&self.bus, &self.standing, read).await;
                self.finish(handed_over, &mut runs);
                while let Some(run) = runs.join_next().await {
                    self.ended(run).await;
                }
            }
        }
        Ok(())
    }
}

/// The events of these keys, as the relay would publish them.
#[cfg(test)]
pub(crate) async fn read(
    pool: &Pool,
    conversations: &[uuid::Uuid],
    seqs: &[i64],
) -> Vec<confab_bus::Outgoing> {
    reading::events_of(pool, conversations, seqs).await
}

/// What a relay does that stops behind its claim.
#[cfg(test)]
pub(super) async fn claim_and_stop(pool: &Pool) -> bool {
    let claimed = claim(pool, i64::MAX, MAX_CLAIM_ROWS).await.unwrap();
    claimed.is_some()
}
