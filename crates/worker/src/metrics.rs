//! Every metric of a worker, declared once with its name, unit, labels and meaning, and registered from that.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use confab_bus::Outgoing;
use confab_protocol::command::Command;
use confab_protocol::error::Code;
use confab_protocol::event::EventType;
use confab_protocol::metric::Metric;
use confab_protocol::query::{Query, QueryKind};
use confab_protocol::resource::ConversationType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric as Collector, Registry, Unit};

use crate::outbox::sweep;
use crate::planner::Locking;

mod table;

pub use table::METRICS;
use table::{
    BATCH_EVENTS, BATCH_LATENCY, BREAKS, COMMAND_LATENCY, COMMAND_PAYLOAD, COMMANDS, CREATED,
    DELETED, LATE, LINGERING, LOCK_WAIT, LOCKED, MALFORMED, OLDEST, POSTPONED, QUERIES,
    QUERIES_RUNNING, QUERIES_WAITING, QUERY_LATENCY, QUERY_PAYLOAD, RELAYED, UNSENT, WAITING,
};
use table::{LEFT_TO_RELAY, QUEUED, STEPPED_OVER, SWEEP_BEHIND, SWEPT, UNPUBLISHABLE};

/// Seconds, from a fast commit to the end of every budget.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Messages in one commit.
const EVENTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
/// Bytes, from a bare command to the largest message between gateway and worker.
const BYTES: [f64; 8] = [
    256.0,
    512.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
];

/// A family of histograms, whose buckets are those of its constructor.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabel {
    command: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    query: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabel {
    query: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: &'static str,
}

/// The worker's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    commands: Family<CommandLabels, Counter>,
    command_latency: Histograms<CommandLabel>,
    command_payload: Histograms<CommandLabel>,
    queries: Family<QueryLabels, Counter>,
    query_latency: Histograms<QueryLabel>,
    query_payload: Histograms<QueryLabel>,
    queries_waiting: Family<KindLabel, Gauge>,
    queries_running: Family<KindLabel, Gauge>,
    batch_events: Histogram,
    batch_latency: Histogram,
    waiting: Gauge,
    postponed: Gauge,
    locked: Counter,
    lock_wait: Histogram,
    created: Family<TypeLabel, Counter>,
    deleted: Counter,
    malformed: Counter,
    late: Counter,
    unsent: Counter,
    relayed: Counter,
    breaks: Counter,
    lingering: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    stepped_over: Gauge,
    unpublishable: Counter,
    left_to_relay: Counter,
    queued: Gauge,
    swept: Family<TableLabel, Counter>,
    sweep_behind: Family<TableLabel, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let seconds = seconds as fn() -> Histogram;
        let bytes = bytes as fn() -> Histogram;
        let metrics = Self {
            commands: Family::default(),
            command_latency: Family::new_with_constructor(seconds),
            command_payload: Family::new_with_constructor(bytes),
            queries: Family::default(),
            query_latency: Family::new_with_constructor(seconds),
            query_payload: Family::new_with_constructor(bytes),
            queries_waiting: Family::default(),
            queries_running: Family::default(),
            batch_events: Histogram::new(EVENTS),
            batch_latency: seconds(),
            waiting: Gauge::default(),
            postponed: Gauge::default(),
            locked: Counter::default(),
            lock_wait: seconds(),
            created: Family::default(),
            deleted: Counter::default(),
            malformed: Counter::default(),
            late: Counter::default(),
            unsent: Counter::default(),
            relayed: Counter::default(),
            breaks: Counter::default(),
            lingering: Gauge::default(),
            oldest: Gauge::default(),
            stepped_over: Gauge::default(),
            unpublishable: Counter::default(),
            left_to_relay: Counter::default(),
            queued: Gauge::default(),
            swept: Family::default(),
            sweep_behind: Family::default(),
        };
        register(registry, COMMANDS, &metrics.commands);
        register(registry, COMMAND_LATENCY, &metrics.command_latency);
        register(registry, COMMAND_PAYLOAD, &metrics.command_payload);
        register(registry, QUERIES, &metrics.queries);
        register(registry, QUERY_LATENCY, &metrics.query_latency);
        register(registry, QUERY_PAYLOAD, &metrics.query_payload);
        register(registry, QUERIES_WAITING, &metrics.queries_waiting);
        register(registry, QUERIES_RUNNING, &metrics.queries_running);
        register(registry, BATCH_EVENTS, &metrics.batch_events);
        register(registry, BATCH_LATENCY, &metrics.batch_latency);
        register(registry, WAITING, &metrics.waiting);
        register(registry, POSTPONED, &metrics.postponed);
        register(registry, LOCKED, &metrics.locked);
        register(registry, LOCK_WAIT, &metrics.lock_wait);
        register(registry, CREATED, &metrics.created);
        register(registry, DELETED, &metrics.deleted);
        register(registry, MALFORMED, &metrics.malformed);
        register(registry, LATE, &metrics.late);
        register(registry, UNSENT, &metrics.unsent);
        register(registry, RELAYED, &metrics.relayed);
        register(registry, BREAKS, &metrics.breaks);
        register(registry, LINGERING, &metrics.lingering);
        register(registry, OLDEST, &metrics.oldest);
        register(registry, STEPPED_OVER, &metrics.stepped_over);
        register(registry, UNPUBLISHABLE, &metrics.unpublishable);
        register(registry, LEFT_TO_RELAY, &metrics.left_to_relay);
        register(registry, QUEUED, &metrics.queued);
        register(registry, SWEPT, &metrics.swept);
        register(registry, SWEEP_BEHIND, &metrics.sweep_behind);
        metrics.show_families();
        metrics
    }

    fn show_families(&self) {
        let result = result(None);
        let labels = |command| CommandLabels { command, result };
        at_zero(&self.commands, Command::NAMES.map(labels));
        for latency_or_payload in [&self.command_latency, &self.command_payload] {
            let label = |command| CommandLabel { command };
            at_zero(latency_or_payload, Command::NAMES.map(label));
        }
        let labels = |query| QueryLabels { query, result };
        at_zero(&self.queries, Query::NAMES.map(labels));
        for latency_or_payload in [&self.query_latency, &self.query_payload] {
            at_zero(
                latency_or_payload,
                Query::NAMES.map(|query| QueryLabel { query }),
            );
        }
        for kind in QueryKind::ALL {
            self.query_slots(kind, 0, 0);
        }
        let types = [
            ConversationType::Direct,
            ConversationType::Group,
            ConversationType::Channel,
        ];
        let label = |r#type: ConversationType| TypeLabel {
            r#type: r#type.as_str(),
        };
        at_zero(&self.created, types.map(label));
        let tables = || sweep::ALL.map(|sweep| TableLabel { table: sweep.table });
        at_zero(&self.swept, tables());
        at_zero(&self.sweep_behind, tables());
    }

    /// A command was answered, so long after it came.
    pub(crate) fn command(
        &self,
        command: &'static str,
        code: Option<Code>,
        took: Duration,
        bytes: usize,
    ) {
        let labels = CommandLabels {
            command,
            result: result(code),
        };
        self.commands.get_or_create(&labels).inc();
        let label = CommandLabel { command };
        self.command_latency
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        self.command_payload
            .get_or_create(&label)
            .observe(float(bytes));
    }

    /// A query was answered.
    pub(crate) fn query(&self, query: &'static str, code: Option<Code>) {
        let labels = QueryLabels {
            query,
            result: result(code),
        };
        self.queries.get_or_create(&labels).inc();
    }

    /// So many queries of a kind wait and run.
    pub(crate) fn query_slots(&self, kind: QueryKind, waiting: usize, running: usize) {
        for (gauges, count) in [
            (&self.queries_waiting, waiting),
            (&self.queries_running, running),
        ] {
            let label = KindLabel { kind: kind.name() };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            gauges.get_or_create(&label).set(count);
        }
    }

    /// A query was read, in this time.
    pub(crate) fn query_read(&self, query: &'static str, took: Duration) {
        self.query_latency
            .get_or_create(&QueryLabel { query })
            .observe(took.as_secs_f64());
    }

    /// A query's answer went out with so many bytes.
    pub(crate) fn query_answer(&self, query: &'static str, bytes: usize) {
        self.query_payload
            .get_or_create(&QueryLabel { query })
            .observe(float(bytes));
    }

    pub(crate) fn batch(&self, events: usize, took: Duration) {
        self.batch_events.observe(float(events));
        self.batch_latency.observe(took.as_secs_f64());
    }

    pub(crate) fn waiting(&self, commands: usize, postponed: usize) {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.set(count(commands));
        self.postponed.set(count(postponed));
    }

    /// So many commands were left out because of locks; those that waited for one waited and ran so long.
    pub(crate) fn locked(&self, locking: Locking, skipped: usize, took: Duration) {
        self.locked
            .inc_by(u64::try_from(skipped).unwrap_or(u64::MAX));
        if locking == Locking::Wait {
            self.waited_for_lock(took);
        }
    }

    /// A read mark that met a lock was written or given up so long after it came.
    pub(crate) fn waited_for_lock(&self, took: Duration) {
        self.lock_wait.observe(took.as_secs_f64());
    }

    /// A conversation began.
    pub(crate) fn created(&self, r#type: ConversationType) {
        let r#type = r#type.as_str();
        self.created.get_or_create(&TypeLabel { r#type }).inc();
    }

    /// Counts the conversations whose end is among what was committed.
    pub(crate) fn deleted(&self, events: &[Outgoing]) {
        let is_end = |event: &&Outgoing| event.r#type == EventType::ConversationDeleted;
        let ends = events.iter().filter(is_end).count();
        self.deleted.inc_by(ends as u64);
    }

    pub(crate) fn malformed(&self) {
        self.malformed.inc();
    }

    /// Commands came behind the end of their budget.
    pub(crate) fn late(&self, commands: usize) {
        self.late.inc_by(commands as u64);
    }

    /// An answer could not be sent.
    pub(crate) fn unsent(&self) {
        self.unsent.inc();
    }

    pub(crate) fn relayed(&self, events: usize) {
        self.relayed.inc_by(events as u64);
    }

    pub(crate) fn found_break(&self) {
        self.breaks.inc();
    }

    /// So many commits are not published though they are old enough, and so many cannot be.
    pub(crate) fn lingering(&self, lingering: i64, stepped_over: i64) {
        self.lingering.set(lingering);
        self.stepped_over.set(stepped_over);
    }

    /// The oldest commit that is not published has been there for so long.
    pub(crate) fn oldest_unpublished(&self, age: Duration) {
        self.oldest.set(age.as_secs_f64());
    }

    /// A commit has events that cannot be published.
    pub(crate) fn unpublishable(&self) {
        self.unpublishable.inc();
    }

    pub(crate) fn left_to_relay(&self) {
        self.left_to_relay.inc();
    }

    /// So many bytes wait in the publisher's queue.
    pub(crate) fn queued(&self, bytes: usize) {
        self.queued.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn swept(&self, table: &'static str, rows: i64) {
        let rows = u64::try_from(rows).unwrap_or_default();
        self.swept.get_or_create(&TableLabel { table }).inc_by(rows);
    }

    /// The oldest row of a table should have been swept so many seconds ago.
    pub(crate) fn sweep_behind(&self, table: &'static str, seconds: f64) {
        let behind = self.sweep_behind.get_or_create(&TableLabel { table });
        behind.set(seconds);
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

/// Registers what counts a metric as that is declared.
fn register<C: Collector + Clone>(registry: &mut Registry, metric: Metric, collector: &C) {
    let Metric {
        name, unit, help, ..
    } = metric;
    let collector = collector.clone();
    match unit {
        "" => registry.register(name, help, collector),
        "seconds" => registry.register_with_unit(name, help, Unit::Seconds, collector),
        "bytes" => registry.register_with_unit(name, help, Unit::Bytes, collector),
        other => {
            registry.register_with_unit(name, help, Unit::Other(other.to_owned()), collector);
        }
    }
}

const fn result(code: Option<Code>) -> &'static str {
    match code {
        None => "OK",
        Some(code) => code.as_str(),
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
