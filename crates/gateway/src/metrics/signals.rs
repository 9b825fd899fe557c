//! Metrics of signals, and of the memberships that the hub keeps.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    kind: &'static str,
    result: &'static str,
}

/// Metrics of signals.
#[derive(Debug, Clone)]
pub(crate) struct SignalMetrics {
    signals: Family<SignalLabels, Counter>,
    malformed: Counter,
}

impl SignalMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            signals: Family::default(),
            malformed: Counter::default(),
        };
        registry.register(
            "confab_signals",
            "Signals by kind (typing, receipt, presence) and what became of them: sent, throttled, dropped, heard",
            metrics.signals.clone(),
        );
        registry.register(
            "confab_signals_malformed",
            "Messages on the signals' subjects that are no signals",
            metrics.malformed.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, kind: &'static str, result: &'static str) {
        self.signals
            .get_or_create(&SignalLabels { kind, result })
            .inc();
    }

    /// Counts a malformed message; says whether it was the first, which alone is logged.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.inc() == 0
    }
}

/// Metrics of the memberships that the hub keeps, when they are asked whether a user is a member.
#[derive(Debug, Clone)]
pub(crate) struct CacheMetrics {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) stale: Counter,
}

impl CacheMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            stale: Counter::default(),
        };
        registry.register(
            "confab_participant_cache_hits",
            "Questions for a membership that the gateway knew",
            metrics.hits.clone(),
        );
        registry.register(
            "confab_participant_cache_misses",
            "Questions for a membership that the gateway did not know, so that a worker was asked",
            metrics.misses.clone(),
        );
        registry.register(
            "confab_participant_cache_stale",
            "Misses of which the worker said that there is such a membership",
            metrics.stale.clone(),
        );
        metrics
    }
}
