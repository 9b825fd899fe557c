//! Metrics of tokens.

use std::time::Duration;

use confab_auth::{AuthError, Part};
use confab_protocol::error::Code;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{at_zero, name, register, seconds};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthLabels {
    transport: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    defect: &'static str,
    claim: &'static str,
}

/// Metrics of tokens.
#[derive(Debug, Clone)]
pub(crate) struct AuthMetrics {
    requests: Family<AuthLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    latency: Histogram,
}

impl AuthMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            refused: Family::default(),
            latency: seconds(),
        };
        register(registry, "confab_auth_requests", metrics.requests.clone());
        register(registry, "confab_auth_refusals", metrics.refused.clone());
        register(registry, "confab_auth_latency", metrics.latency.clone());
        let label = |transport| AuthLabels {
            transport,
            result: name(None),
        };
        at_zero(&metrics.requests, ["http", "websocket"].map(label));
        let label = |error: AuthError| RefusalLabels {
            defect: error.label(),
            claim: "none",
        };
        let errors = [
            AuthError::Missing,
            AuthError::Expired,
            AuthError::Unavailable,
        ];
        at_zero(&metrics.refused, errors.map(label));
        metrics
    }

    /// A token was refused.
    pub(crate) fn refused(&self, error: &AuthError) {
        self.refused
            .get_or_create(&RefusalLabels {
                defect: error.label(),
                claim: error.part().map_or("none", Part::name),
            })
            .inc();
    }

    pub(crate) fn observe(&self, transport: &'static str, code: Option<Code>, took: Duration) {
        self.requests
            .get_or_create(&AuthLabels {
                transport,
                result: name(code),
            })
            .inc();
        self.latency.observe(took.as_secs_f64());
    }
}
