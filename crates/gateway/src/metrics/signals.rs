//! Metrics of signals, and of the memberships that the hub keeps.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{at_zero, register};

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
        register(registry, "confab_signals", metrics.signals.clone());
        register(
            registry,
            "confab_signals_malformed",
            metrics.malformed.clone(),
        );
        let label = |kind| {
            ["sent", "throttled", "dropped", "heard"].map(|result| SignalLabels { kind, result })
        };
        let kinds = ["typing", "receipt", "presence"];
        at_zero(&metrics.signals, kinds.into_iter().flat_map(label));
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
        register(
            registry,
            "confab_participant_cache_hits",
            metrics.hits.clone(),
        );
        register(
            registry,
            "confab_participant_cache_misses",
            metrics.misses.clone(),
        );
        register(
            registry,
            "confab_participant_cache_stale",
            metrics.stale.clone(),
        );
        metrics
    }
}
