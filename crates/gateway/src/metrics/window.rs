//! Metrics of the replay window, and of what is replayed.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Part, at_zero, register};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// What was replayed since this was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Replays {
    /// Events from the window.
    pub(crate) window: u64,
    /// Events from a worker.
    pub(crate) worker: u64,
    /// Ranges that were named instead.
    pub(crate) truncated: u64,
}

/// Metrics of the replay window, and of what is replayed.
#[derive(Debug, Clone)]
pub(crate) struct WindowMetrics {
    events: Gauge,
    bytes: Gauge,
    replayed: Family<SourceLabel, Counter>,
    truncated: Counter,
}

impl WindowMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Gauge::default(),
            bytes: Gauge::default(),
            replayed: Family::default(),
            truncated: Counter::default(),
        };
        register(registry, "confab_window_events", metrics.events.clone());
        register(registry, "confab_window_size", metrics.bytes.clone());
        register(registry, "confab_replayed_events", metrics.replayed.clone());
        register(
            registry,
            "confab_truncated_ranges",
            metrics.truncated.clone(),
        );
        at_zero(
            &metrics.replayed,
            ["window", "worker"].map(|source| SourceLabel { source }),
        );
        metrics
    }

    /// A shard's window holds so many events and bytes, and held as many as it last said.
    pub(crate) fn observe(&self, [events, bytes]: &mut [Part; 2], held: (usize, usize)) {
        events.show(&self.events, held.0);
        bytes.show(&self.bytes, held.1);
    }

    /// So much was replayed.
    pub(crate) fn replayed(&self, replays: Replays) {
        for (source, events) in [("window", replays.window), ("worker", replays.worker)] {
            if events > 0 {
                self.replayed
                    .get_or_create(&SourceLabel { source })
                    .inc_by(events);
            }
        }
        self.truncated.inc_by(replays.truncated);
    }
}
