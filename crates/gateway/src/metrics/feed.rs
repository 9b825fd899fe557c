//! Metrics of the feed and the hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use confab_bus::feed::Break;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;
use crate::lag::Lag;

/// More events than this unread in the stream: the gateway lags by seconds, and is not ready.
const LAG: u64 = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
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
    filled: Arc<AtomicBool>,
    pending: Arc<AtomicU64>,
    hub_lag: Lag,
    hub_lag_seconds: Gauge<f64, AtomicU64>,
}

impl FeedMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
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
            filled: Arc::default(),
            pending: Arc::default(),
            hub_lag: Lag::new(Instant::now()),
            hub_lag_seconds: Gauge::default(),
        };
        register(registry, "confab_feed_events", metrics.events.clone());
        register(registry, "confab_feed_breaks", metrics.breaks.clone());
        register(registry, "confab_hub_questions", metrics.questions.clone());
        register(registry, "confab_hub_waiting", metrics.waiting.clone());
        register(registry, "confab_feed_malformed", metrics.malformed.clone());
        register(registry, "confab_feed_past", metrics.past.clone());
        register(registry, "confab_feed_lag", metrics.lag.clone());
        register(registry, "confab_hub_lag", metrics.hub_lag_seconds.clone());
        register(registry, "confab_sessions", metrics.sessions.clone());
        register(
            registry,
            "confab_hub_conversations",
            metrics.conversations.clone(),
        );
        metrics
    }

    pub(crate) fn event(&self, kind: &'static str, pending: u64) {
        self.events.get_or_create(&KindLabel { kind }).inc();
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

    pub(crate) fn broken(&self, kind: Break) {
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

    /// The replay window has what the stream kept of before the start.
    pub(crate) fn filled(&self) {
        self.filled.store(true, Ordering::Relaxed);
    }

    /// Whether the replay window was filled once.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    pub(crate) fn observe(&self, sessions: usize, conversations: usize) {
        self.sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.conversations
            .set(i64::try_from(conversations).unwrap_or(i64::MAX));
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

    /// How far the hub is behind the feed's reader.
    pub(crate) const fn hub_lag(&self) -> &Lag {
        &self.hub_lag
    }

    /// Shows how far the hub is behind.
    pub(crate) fn show_hub_lag(&self) {
        let age = self.hub_lag.age(Instant::now());
        self.hub_lag_seconds.set(age.as_secs_f64());
    }

    /// Whether the feed was reconciled after its last beginning, and does not lag by seconds.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.reconciled.load(Ordering::Relaxed) && self.pending.load(Ordering::Relaxed) < LAG
    }
}
