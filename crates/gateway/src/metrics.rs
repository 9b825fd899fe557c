//! Every metric of a gateway: declared once, in the table, with its name, unit, labels and meaning.

use confab_protocol::error::Code;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{self, Registry, Unit};

mod arrivals;
mod auth;
mod commands;
mod connections;
mod feed;
mod http;
mod lag;
mod limits;
mod records;
mod revocations;
mod signals;
mod sockets;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use arrivals::ArrivalMetrics;
pub(crate) use auth::AuthMetrics;
pub(crate) use commands::CommandMetrics;
pub(crate) use connections::{AllConnectionMetrics, ConnectionMetrics};
pub(crate) use feed::FeedMetrics;
pub(crate) use http::{Answered, HttpMetrics, UNMATCHED_ROUTE};
pub(crate) use lag::MAX_LAG;
pub(crate) use limits::LimitMetrics;
pub(crate) use records::RecordMetrics;
pub(crate) use revocations::RevocationMetrics;
pub(crate) use signals::{CacheMetrics, SignalMetrics};
pub(crate) use sockets::{FrameMetrics, SocketMetrics};
pub use table::METRICS;
pub(crate) use window::{Replays, WindowMetrics};

/// Seconds, from a fast answer to the end of every budget.
const SECONDS_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Bytes, from a short message to the largest answer of a worker.
const BYTES_BUCKETS: [f64; 8] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];

fn seconds() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES_BUCKETS)
}

/// The label of an outcome.
const fn name(code: Option<Code>) -> &'static str {
    match code {
        None => "OK",
        Some(code) => code.as_str(),
    }
}

/// A count of bytes as a histogram takes it: exact up to 4 GiB, more than any payload has.
fn observed(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// A part of a gauge that several add up to, as it was last shown.
#[derive(Debug, Default)]
pub(crate) struct Part(i64);

impl Part {
    fn show(&mut self, sum: &Gauge, now: usize) {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        sum.inc_by(now - self.0);
        self.0 = now;
    }
}

/// Shows these label sets of a family at zero: what was never counted is there all the same, and a rate has where to begin.
fn at_zero<L, M, C>(family: &Family<L, M, C>, labels: impl IntoIterator<Item = L>)
where
    L: Clone + std::hash::Hash + Eq,
    C: MetricConstructor<M>,
{
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
}

/// Registers a metric as the table declares it.
fn register(registry: &mut Registry, name: &'static str, metric: impl registry::Metric) {
    let Some(declared) = METRICS.iter().find(|declared| declared.name == name) else {
        debug_assert!(false, "{name} is not in the table");
        return;
    };
    match declared.unit {
        "" => registry.register(name, declared.help, metric),
        "seconds" => registry.register_with_unit(name, declared.help, Unit::Seconds, metric),
        "bytes" => registry.register_with_unit(name, declared.help, Unit::Bytes, metric),
        other => {
            let unit = Unit::Other(other.to_owned());
            registry.register_with_unit(name, declared.help, unit, metric);
        }
    }
}
