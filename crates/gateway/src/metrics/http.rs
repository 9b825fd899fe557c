//! Metrics of HTTP requests.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{at_zero, bytes, observed, register, seconds};

/// The route of requests that are for none.
pub(crate) const UNMATCHED_ROUTE: &str = "unmatched";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: String,
    method: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl RouteLabel {
    fn of(route: &str) -> Self {
        Self {
            route: route.to_owned(),
        }
    }
}

/// Metrics of HTTP requests.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: Family<HttpLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    requested: Family<RouteLabel, Histogram, fn() -> Histogram>,
    answered: Family<RouteLabel, Histogram, fn() -> Histogram>,
}

/// An answer, as metrics see it.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    /// The route as declared, or `unmatched`.
    pub(crate) route: &'a str,
    /// The method, or `other`.
    pub(crate) method: &'a str,
    /// The status.
    pub(crate) status: u16,
    /// The length of the body, where it is known.
    pub(crate) bytes: Option<u64>,
    /// The time since the request's head came.
    pub(crate) took: Duration,
}

impl HttpMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
            requested: Family::new_with_constructor(bytes as fn() -> Histogram),
            answered: Family::new_with_constructor(bytes as fn() -> Histogram),
        };
        register(registry, "confab_http_requests", metrics.requests.clone());
        register(
            registry,
            "confab_http_request_latency",
            metrics.latency.clone(),
        );
        register(
            registry,
            "confab_http_request_payload",
            metrics.requested.clone(),
        );
        register(
            registry,
            "confab_http_answer_payload",
            metrics.answered.clone(),
        );
        let unmatched = || [RouteLabel::of(UNMATCHED_ROUTE)];
        at_zero(&metrics.latency, unmatched());
        at_zero(&metrics.requested, unmatched());
        at_zero(&metrics.answered, unmatched());
        let labels = HttpLabels {
            route: UNMATCHED_ROUTE.to_owned(),
            method: "GET".to_owned(),
            status: 404,
        };
        at_zero(&metrics.requests, [labels]);
        metrics
    }

    /// A request's body was read.
    pub(crate) fn read(&self, route: &str, bytes: usize) {
        self.requested
            .get_or_create(&RouteLabel::of(route))
            .observe(observed(bytes as u64));
    }

    /// A request was answered.
    pub(crate) fn answered(&self, answered: &Answered<'_>) {
        let labels = HttpLabels {
            route: answered.route.to_owned(),
            method: answered.method.to_owned(),
            status: u32::from(answered.status),
        };
        self.requests.get_or_create(&labels).inc();
        let route = RouteLabel::of(answered.route);
        self.latency
            .get_or_create(&route)
            .observe(answered.took.as_secs_f64());
        if let Some(bytes) = answered.bytes {
            self.answered.get_or_create(&route).observe(observed(bytes));
        }
    }
}
