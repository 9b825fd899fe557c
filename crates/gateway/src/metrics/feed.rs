//! Metrics of the feed and the hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use confab_bus::feed::StreamDiscontinuity;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::lag::Lag;
use super::{Part, at_zero, register};

/// More events than this unread in the stream: the gateway lags by seconds, and is not ready.
const MAX_PENDING_EVENTS: u64 = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u64,
}

/// Metrics of the feed and the hub, and whether the feed is caught up.
#[derive(Debug, Clone)]
pub(crate) struct FeedMetrics {
    events: Family<KindLabel, Counter>,
    breaks: Family<KindLabel, Counter>,
    questions: Family<KindLabel, Counter>,
    waiting: Family<KindLabel, Gauge>,
    malformed: Counter,
    past: Counter,
    lag: Gauge,
    sessions: Gauge,
    conversations: Gauge,
    reconciled: Arc<AtomicBool>,
    /// How many shards' windows are not filled.
    unfilled: Arc<AtomicUsize>,
    pending: Arc<AtomicU64>,
    /// How many shards miss events of which they were not told.
    broken: Arc<AtomicUsize>,
    /// Of each shard, and of their coordinator.
    lags: Arc<[Lag]>,
    coordinator: Lag,
    lag_seconds: Family<ShardLabel, Gauge<f64, AtomicU64>>,
}

impl FeedMetrics {
    /// Of a hub of so many shards.
    pub(crate) fn new(registry: &mut Registry, shards: usize) -> Self {
        let lag = || Lag::new(Instant::now());
        let metrics = Self {
            events: Family::default(),
            breaks: Family::default(),
            questions: Family::default(),
            waiting: Family::default(),
            malformed: Counter::default(),
            past: Counter::default(),
            lag: Gauge::default(),
            sessions: Gauge::default(),
            conversations: Gauge::default(),
            reconciled: Arc::default(),
            unfilled: Arc::new(AtomicUsize::new(shards)),
            pending: Arc::default(),
            broken: Arc::default(),
            lags: std::iter::repeat_with(lag).take(shards).collect(),
            coordinator: lag(),
            lag_seconds: Family::default(),
        };
        register(registry, "confab_feed_events", metrics.events.clone());
        register(registry, "confab_feed_breaks", metrics.breaks.clone());
        register(registry, "confab_hub_questions", metrics.questions.clone());
        register(registry, "confab_hub_waiting", metrics.waiting.clone());
        register(registry, "confab_feed_malformed", metrics.malformed.clone());
        register(registry, "confab_feed_past", metrics.past.clone());
        register(registry, "confab_feed_lag", metrics.lag.clone());
        register(registry, "confab_hub_lag", metrics.lag_seconds.clone());
        register(registry, "confab_sessions", metrics.sessions.clone());
        register(
            registry,
            "confab_hub_conversations",
            metrics.conversations.clone(),
        );
        let label = |kind| KindLabel { kind };
        let events = ["delivered", "duplicate", "held", "unheard"];
        at_zero(&metrics.events, events.map(label));
        let breaks = [
            "recreated",
            "tail_lost",
            "replaced",
            "skipped",
            "announced",
            "dropped",
            "stalled",
            "shard_full",
        ];
        at_zero(&metrics.breaks, breaks.map(label));
        at_zero(
            &metrics.questions,
            ["read_events", "memberships"].map(label),
        );
        let waiting = ["small_openings", "large_openings", "questions"];
        at_zero(&metrics.waiting, waiting.map(label));
        metrics.show_hub_lag();
        metrics
    }

    pub(crate) fn event(&self, kind: &'static str) {
        self.events.get_or_create(&KindLabel { kind }).inc();
    }

    /// So many events wait in the stream behind the one that was read.
    pub(crate) fn pending(&self, pending: u64) {
        self.lag.set(pending.cast_signed());
        self.pending.store(pending, Ordering::Relaxed);
    }

    pub(crate) fn question(&self, kind: &'static str) {
        self.questions.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn waiting(&self, kind: &'static str, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.waiting.get_or_create(&KindLabel { kind }).set(waiting);
    }

    pub(crate) fn broke(&self, kind: StreamDiscontinuity) {
        self.breaks
            .get_or_create(&KindLabel {
                kind: kind.as_str(),
            })
            .inc();
    }

    /// Counts malformed messages; says whether they are the first, which alone are logged.
    pub(crate) fn malformed(&self, count: u64) -> bool {
        self.malformed.inc_by(count) == 0 && count > 0
    }

    /// Events of the stream's past were read.
    pub(crate) fn past(&self, events: u64) {
        self.past.inc_by(events);
    }

    /// An event found no room in the queue to its shard.
    pub(crate) fn shard_full(&self) {
        let kind = "shard_full";
        self.breaks.get_or_create(&KindLabel { kind }).inc();
        self.reconciling();
    }

    /// How many shards miss events of which they were not told.
    pub(crate) fn broken(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.broken)
    }

    /// A shard's replay window has what the stream kept of before the start.
    pub(crate) fn filled(&self) {
        self.unfilled.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the replay window was filled once.
    pub(crate) fn is_filled(&self) -> bool {
        self.unfilled.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn sessions_now(&self, sessions: usize) {
        self.sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// A shard has so many conversations, and had so many when it last said so.
    pub(crate) fn conversations(&self, had: &mut Part, has: usize) {
        had.show(&self.conversations, has);
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> i64 {
        self.sessions.get()
    }

    pub(crate) fn reconciling(&self) {
        self.reconciled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn reconciled(&self) {
        self.reconciled.store(true, Ordering::Relaxed);
    }

    /// How far a shard is behind the feed's reader.
    pub(crate) fn lag(&self, shard: usize) -> &Lag {
        self.lags.get(shard).unwrap_or(&self.coordinator)
    }

    /// Whether the coordinator takes turns: it hears nothing of the feed.
    pub(crate) const fn coordinator(&self) -> &Lag {
        &self.coordinator
    }

    /// Whether every shard and the coordinator take turns, and none is far behind.
    pub(crate) fn keeps_up(&self, now: Instant) -> bool {
        let mut all = self.lags.iter().chain([&self.coordinator]);
        all.all(|lag| lag.keeps_up(now))
    }

    /// Shows how far the shards are behind.
    pub(crate) fn show_hub_lag(&self) {
        for (lag, shard) in self.lags.iter().zip(0..) {
            let age = lag.age(Instant::now()).as_secs_f64();
            self.lag_seconds
                .get_or_create(&ShardLabel { shard })
                .set(age);
        }
    }

    /// Whether the feed was reconciled after its last beginning, no shard misses anything of it, and it does not lag by seconds.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.reconciled.load(Ordering::Relaxed)
            && self.broken.load(Ordering::Relaxed) == 0
            && self.pending.load(Ordering::Relaxed) < MAX_PENDING_EVENTS
    }
}
