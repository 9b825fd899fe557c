//! What a metric is, declared once: registered from this, and listed in docs/metrics.md from it.

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; scraped with `_total` behind its name.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution; scraped as `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// A metric's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without unit and `_total`.
    pub name: &'static str,
    /// Its unit, which stands behind the name: `seconds`, `bytes`; empty where it counts things.
    pub unit: &'static str,
    /// What it counts.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, without a full stop.
    pub help: &'static str,
}
