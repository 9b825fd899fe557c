//! Metrics of connections, whatever is said over them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Metrics of all kinds of connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllConnectionMetrics {
    open: Family<KindLabel, Gauge>,
    evicted: Family<KindLabel, Counter>,
    before_hello: Gauge,
}

/// Metrics of one kind of connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    open: Gauge,
    evicted: Counter,
}

impl AllConnectionMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        register(registry, "confab_connections", metrics.open.clone());
        register(
            registry,
            "confab_connections_evicted",
            metrics.evicted.clone(),
        );
        register(
            registry,
            "confab_sockets_before_hello",
            metrics.before_hello.clone(),
        );
        for kind in ["http", "websocket", "reserved"] {
            drop(metrics.of(kind));
        }
        drop(metrics.before_hello());
        metrics
    }

    /// Those of the sockets that wait for a hello with a token, which are counted among all sockets too.
    pub(crate) fn before_hello(&self) -> ConnectionMetrics {
        ConnectionMetrics {
            open: self.before_hello.clone(),
            evicted: self
                .evicted
                .get_or_create_owned(&KindLabel { kind: "hello" }),
        }
    }

    /// Those of the connections of a kind.
    pub(crate) fn of(&self, kind: &'static str) -> ConnectionMetrics {
        let labels = KindLabel { kind };
        ConnectionMetrics {
            open: self.open.get_or_create_owned(&labels),
            evicted: self.evicted.get_or_create_owned(&labels),
        }
    }
}

impl ConnectionMetrics {
    /// One more is open.
    pub(crate) fn opened(&self) {
        self.open.inc();
    }

    /// One less is open.
    pub(crate) fn ended(&self) {
        self.open.dec();
    }

    /// One was closed for another.
    pub(crate) fn evicted(&self) {
        self.evicted.inc();
    }
}
