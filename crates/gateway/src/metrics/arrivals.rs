//! Metrics of the gate for new connections.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{at_zero, register, seconds};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArrivalLabels {
    kind: &'static str,
    result: &'static str,
}

/// Metrics of the gate for new connections.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalMetrics {
    arrivals: Family<ArrivalLabels, Counter>,
    waits: Histogram,
}

impl ArrivalMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            arrivals: Family::default(),
            waits: seconds(),
        };
        register(registry, "confab_arrivals", metrics.arrivals.clone());
        register(registry, "confab_arrival_wait", metrics.waits.clone());
        let label = |kind| ["admitted", "refused"].map(|result| ArrivalLabels { kind, result });
        at_zero(
            &metrics.arrivals,
            ["resume", "fresh"].into_iter().flat_map(label),
        );
        metrics
    }

    pub(crate) fn admitted(&self, kind: &'static str, wait: Duration) {
        self.count(kind, "admitted");
        self.waits.observe(wait.as_secs_f64());
    }

    pub(crate) fn refused(&self, kind: &'static str) {
        self.count(kind, "refused");
    }

    fn count(&self, kind: &'static str, result: &'static str) {
        self.arrivals
            .get_or_create(&ArrivalLabels { kind, result })
            .inc();
    }
}
