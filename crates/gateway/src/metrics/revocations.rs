//! Metrics of revocations.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;

/// Metrics of revocations.
#[derive(Debug, Clone)]
pub(crate) struct RevocationMetrics {
    known: Gauge,
    malformed: Counter,
}

impl RevocationMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            known: Gauge::default(),
            malformed: Counter::default(),
        };
        register(registry, "confab_revocations", metrics.known.clone());
        register(
            registry,
            "confab_revocations_malformed",
            metrics.malformed.clone(),
        );
        metrics
    }

    pub(crate) fn known(&self, revocations: usize) {
        self.known
            .set(i64::try_from(revocations).unwrap_or(i64::MAX));
    }

    /// Counts a malformed message; says whether it was the first, which alone is logged.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.inc() == 0
    }
}
