//! Metrics of rate limits.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{at_zero, register};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScopeLabel {
    scope: &'static str,
}

/// Metrics of rate limits.
#[derive(Debug, Clone)]
pub(crate) struct LimitMetrics {
    refusals: Family<ScopeLabel, Counter>,
    buckets: Family<ScopeLabel, Gauge>,
}

impl LimitMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            refusals: Family::default(),
            buckets: Family::default(),
        };
        register(
            registry,
            "confab_rate_limit_refusals",
            metrics.refusals.clone(),
        );
        register(
            registry,
            "confab_rate_limit_buckets",
            metrics.buckets.clone(),
        );
        let scopes = [
            "user",
            "device",
            "address",
            "connections",
            "requests",
            "resume_tokens",
        ];
        at_zero(&metrics.refusals, scopes.map(|scope| ScopeLabel { scope }));
        let buckets = ["user", "device", "address"];
        at_zero(&metrics.buckets, buckets.map(|scope| ScopeLabel { scope }));
        metrics
    }

    pub(crate) fn refused(&self, scope: &'static str) {
        self.refusals.get_or_create(&ScopeLabel { scope }).inc();
    }

    pub(crate) fn buckets(&self, scope: &'static str, kept: usize) {
        self.buckets
            .get_or_create(&ScopeLabel { scope })
            .set(i64::try_from(kept).unwrap_or(i64::MAX));
    }
}
