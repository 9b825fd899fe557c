//! Every metric of a worker, declared once with its name, unit, labels and meaning.

use std::time::Duration;

use confab_protocol::error::Code;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds, from a fast commit to the end of every budget.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Messages in one commit.
const EVENTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabel {
    query: &'static str,
}

/// The worker's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    commands: Family<CommandLabels, Counter>,
    batch_events: Histogram,
    batch_latency: Histogram,
    waiting: Gauge,
    queries: Family<QueryLabel, Histogram, fn() -> Histogram>,
    malformed: Counter,
    relayed: Counter,
    breaks: Counter,
    lingering: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            commands: Family::default(),
            batch_events: Histogram::new(EVENTS),
            batch_latency: seconds(),
            waiting: Gauge::default(),
            queries: Family::new_with_constructor(seconds as fn() -> Histogram),
            malformed: Counter::default(),
            relayed: Counter::default(),
            breaks: Counter::default(),
            lingering: Gauge::default(),
        };
        registry.register(
            "confab_worker_commands",
            "Commands answered, by name and result (OK or the error code)",
            metrics.commands.clone(),
        );
        registry.register(
            "confab_commit_batch_events",
            "Messages in one commit",
            metrics.batch_events.clone(),
        );
        registry.register_with_unit(
            "confab_commit_batch_latency",
            "Time of one commit of messages",
            Unit::Seconds,
            metrics.batch_latency.clone(),
        );
        registry.register(
            "confab_commit_waiting",
            "Commands that wait to be committed",
            metrics.waiting.clone(),
        );
        registry.register_with_unit(
            "confab_query_latency",
            "Time of a query in Postgres, by name",
            Unit::Seconds,
            metrics.queries.clone(),
        );
        registry.register(
            "confab_worker_malformed",
            "Requests that no gateway of this version sends",
            metrics.malformed.clone(),
        );
        registry.register(
            "confab_outbox_relayed",
            "Events published by the relay",
            metrics.relayed.clone(),
        );
        registry.register(
            "confab_outbox_breaks",
            "Losses of the stream that were found",
            metrics.breaks.clone(),
        );
        registry.register(
            "confab_outbox_lingering",
            "Commits that were not published within a second, as last seen",
            metrics.lingering.clone(),
        );
        metrics
    }

    pub(crate) fn command(&self, command: &'static str, code: Option<Code>) {
        let result = code.map_or("OK", Code::as_str);
        self.commands
            .get_or_create(&CommandLabels { command, result })
            .inc();
    }

    pub(crate) fn batch(&self, events: usize, took: Duration) {
        self.batch_events
            .observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
        self.batch_latency.observe(took.as_secs_f64());
    }

    pub(crate) fn waiting(&self, commands: usize) {
        self.waiting
            .set(i64::try_from(commands).unwrap_or(i64::MAX));
    }

    pub(crate) fn query(&self, query: &'static str, took: Duration) {
        self.queries
            .get_or_create(&QueryLabel { query })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn malformed(&self) {
        self.malformed.inc();
    }

    pub(crate) fn relayed(&self, events: usize) {
        self.relayed.inc_by(events as u64);
    }

    pub(crate) fn found_break(&self) {
        self.breaks.inc();
    }

    pub(crate) fn lingering(&self, rows: usize) {
        self.lingering.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}
