//! How long things took.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Significant digits that a histogram keeps.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest that is told apart from longer ones, in microseconds.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// Times that were taken, from any thread.
#[derive(Debug)]
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "a valid range and number of digits")]
    fn default() -> Self {
        Self(Mutex::new(
            Histogram::new_with_max(MAX_LATENCY_MICROS, SIGNIFICANT_DIGITS).expect("a valid range"),
        ))
    }
}

impl Latencies {
    /// One that took this long.
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.saturating_record(micros);
    }

    /// How many were recorded since the last [`Self::take`].
    pub(crate) fn count(&self) -> u64 {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.len()
    }

    /// What was recorded since the last time this was asked, and forgets it.
    pub(crate) fn take(&self) -> Latency {
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = Latency::of(&histogram);
        histogram.reset();
        taken
    }
}

/// The distribution of many times, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Percentile, and milliseconds there: for a plot.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// The percentiles of a curve: equal steps of an axis that shows the tail.
const CURVE_PERCENTILES: [f64; 12] = [
    0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99, 100.0,
];

impl Latency {
    /// As a line of a table.
    pub(crate) fn text(&self) -> String {
        format!(
            "p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.1} ms",
            self.p50, self.p90, self.p99, self.p999, self.max
        )
    }

    fn of(histogram: &Histogram<u64>) -> Self {
        let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        let at = |quantile: f64| millis(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
            curve: CURVE_PERCENTILES
                .into_iter()
                .map(|percent| (percent, at(percent / 100.0)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_cover_recordings_since_last_snapshot() {
        let latencies = Latencies::default();
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        let latency = latencies.take();
        assert_eq!(latency.count, 1000);
        assert!((latency.p50 - 500.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99 - 990.0).abs() < 1.0, "{latency:?}");
        assert_eq!(latencies.take().count, 0);
    }
}
