//! What is committed and not in the stream is announced to gateways by its keys, so that members hear of it from Postgres; operators read it in
//! one warning and in a metric. Nothing of this is on the way of a commit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use confab_protocol::degraded::{Change, Recurring};
use confab_protocol::lingering::Announcement;
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{OutboxError, Standing};
use crate::conditions::EVENTS_LINGER;
use crate::database::Pool;
use crate::metrics::Metrics;

mod keys;
mod reading;
mod sightings;

pub(super) use keys::Key;
use keys::{Keys, Selection};
use reading::Look;
use sightings::Sightings;

/// How often the outbox is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// How often all that lingers is announced; what is new of it is at once.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(1);
/// A row that this worker has seen unpublished for so long is announced: longer than the relay takes where JetStream works.
const ANNOUNCED_AGE: Duration = Duration::from_secs(2);
/// A row that this worker has seen unpublished for so long counts as lingering in the metric.
const COUNTED_AGE: Duration = Duration::from_secs(1);
/// It is over when nothing lingered for so long.
const QUIET: Duration = Duration::from_secs(5);
/// A row of this age is warned of without a reason: an acknowledgement that does not come has failed by then.
const REASON_TIMEOUT: Duration = Duration::from_secs(6);
/// A commit may become visible behind others whose rows have higher ids, so much later: its row is looked for that long.
const LATE_COMMIT: Duration = Duration::from_secs(20);
/// Rows that are read in one turn, the newest, and in one statement; of others it is told that they are left out.
const MAX_TURN_ROWS: usize = 2000;
const MAX_STATEMENT_ROWS: usize = 50;
/// Ids of rows that are looked at in one turn.
const MAX_TURN_IDS: usize = 20_000;
/// Runs of keys of rows that were stepped over and wait to be announced; more are not told.
const MAX_STEPPED_OVER: usize = 1024;

/// Where the relay tells what it steps over.
pub(super) type SteppedOver = mpsc::Sender<Vec<Key>>;

/// The way from the relay to the announcements.
pub(super) fn stepped_over() -> (SteppedOver, mpsc::Receiver<Vec<Key>>) {
    mpsc::channel(MAX_STEPPED_OVER)
}

/// A worker's announcements.
#[derive(Debug)]
pub(super) struct Lingering {
    bus: Bus,
    pool: Pool,
    standing: Standing,
    metrics: Metrics,
    /// Since when commits linger, for whoever asks how the worker is.
    since: watch::Sender<Option<Timestamp>>,
    condition: Recurring,
    monitor: Monitor,
    sightings: Sightings,
    keys: Keys,
    /// Rows up to this one were read, and of the last of them which.
    read_up_to: i64,
    read: BTreeSet<i64>,
    announced: Option<Instant>,
}

/// Announces until `stop`.
pub(super) async fn run(
    mut lingering: Lingering,
    mut stepped_over: mpsc::Receiver<Vec<Key>>,
    stop: CancellationToken,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(keys) = stepped_over.recv() => {
                lingering.publish(keys::stepped_over(keys)).await;
            }
            _ = ticks.tick() => {
                // Statements end by themselves: what has begun is not dropped.
                if let Err(error) = lingering.turn(Instant::now()).await {
                    debug!(error = %chain(&error), "it is not known what lingers");
                }
            }
        }
    }
}

impl Lingering {
    pub(super) fn new(
        (bus, pool, standing): (Bus, Pool, Standing),
        metrics: Metrics,
        since: watch::Sender<Option<Timestamp>>,
    ) -> Self {
        Self {
            bus,
            pool,
            standing,
            metrics,
            since,
            condition: Recurring::new(QUIET),
            monitor: Monitor::new(EVENTS_LINGER),
            sightings: Sightings::default(),
            keys: Keys::default(),
            read_up_to: 0,
            read: BTreeSet::new(),
            announced: None,
        }
    }

    /// Looks at what lingers, and announces it.
    pub(super) async fn turn(&mut self, now: Instant) -> Result<(), OutboxError> {
        let counted = self.sightings.seen_for(COUNTED_AGE, now);
        let look = reading::look(&self.pool, counted).await?;
        if self.sightings.note(look.top, look.oldest, now) {
            (self.read_up_to, self.read) = (0, BTreeSet::new());
        }
        let age = look.oldest.map(|id| self.sightings.age(id, now));
        self.metrics.lingering(look.lingering, look.stepped_over);
        self.metrics.oldest_unpublished(age.unwrap_or_default());
        self.keys.published_below(look.oldest);
        if look.oldest.is_none() {
            self.standing.nothing_waits();
        }
        let up_to = self.sightings.seen_for(ANNOUNCED_AGE, now);
        let lingers = up_to.filter(|up_to| look.oldest.is_some_and(|oldest| oldest <= *up_to));
        self.note(lingers.is_some(), look, age.unwrap_or_default(), now);
        let Some(up_to) = lingers else {
            self.announced = None;
            return Ok(());
        };
        self.read(look.oldest.unwrap_or_default(), up_to, now)
            .await?;
        let is_due = |at: Instant| now.saturating_duration_since(at) >= ANNOUNCE_PERIOD;
        let selection = if self.announced.is_none_or(is_due) {
            self.announced = Some(now);
            Selection::All
        } else {
            Selection::New
        };
        let announcements = self.keys.announce(selection);
        self.publish(announcements).await;
        Ok(())
    }

    /// Says once that it begins, when the reason is known or cannot be waited for, and once that it is over.
    fn note(&mut self, lingers: bool, look: Look, age: Duration, now: Instant) {
        match self.condition.note(lingers, now) {
            Some(Change::Began) => {
                let since = Timestamp::new(OffsetDateTime::now_utc());
                self.since.send_replace(Some(since));
            }
            Some(Change::Ended) => {
                self.since.send_replace(None);
                self.monitor.holds();
            }
            None => {}
        }
        // While NATS is away that is told instead, once.
        if !lingers || !self.bus.is_connected() {
            return;
        }
        let reason = self.standing.lately_failed();
        if reason.is_some() || age >= REASON_TIMEOUT || self.monitor.is_failing() {
            let reason = reason.as_deref().unwrap_or("no acknowledgement came");
            let commits = look.lingering;
            self.monitor.failed_for(&format_args!(
                "{reason}; {commits} commits wait, the oldest for {age:.0?}"
            ));
        }
    }

    /// Reads the keys of rows that linger since the last turn.
    async fn read(&mut self, oldest: i64, up_to: i64, now: Instant) -> Result<(), OutboxError> {
        let late = self.sightings.seen_for(ANNOUNCED_AGE + LATE_COMMIT, now);
        let after = self.read_up_to.min(late.unwrap_or_default());
        let after = after.max(oldest - 1);
        self.read = self.read.split_off(&(after + 1));
        let ids = reading::unpublished(&self.pool, (after, up_to), MAX_TURN_IDS).await?;
        if ids.len() >= MAX_TURN_IDS
            && let Some(first) = ids.first()
        {
            self.keys.leave_out(first - 1);
        }
        let is_new = |id: &i64| !self.read.contains(id);
        let mut new: Vec<i64> = ids.into_iter().filter(is_new).collect();
        let left_out = new.len().saturating_sub(MAX_TURN_ROWS);
        if let Some(last) = new.drain(..left_out).next_back() {
            self.keys.leave_out(last);
        }
        for some in new.chunks(MAX_STATEMENT_ROWS) {
            for (row, key) in reading::keys(&self.pool, some).await? {
                self.keys.take(row, key);
            }
            self.read.extend(some);
        }
        self.read_up_to = up_to;
        Ok(())
    }

    async fn publish(&self, announcements: Vec<Announcement>) {
        for announcement in announcements {
            if let Err(error) = self.bus.announce_lingering(&announcement).await {
                debug!(error = %chain(&error), "what lingers cannot be announced now");
                return;
            }
        }
    }
}
