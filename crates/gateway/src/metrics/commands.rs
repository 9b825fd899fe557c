//! Metrics of what workers are asked.

use std::time::Duration;

use confab_protocol::command::Command;
use confab_protocol::error::Code;
use confab_protocol::json::JsonText;
use confab_protocol::query::{Answer, Query};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{at_zero, bytes, name, observed, register, seconds};

/// Commands in one message to a worker.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    command: &'static str,
}

/// Metrics of what workers are asked.
#[derive(Debug, Clone)]
pub(crate) struct CommandMetrics {
    answers: Family<CommandLabels, Counter>,
    latency: Family<NameLabel, Histogram, fn() -> Histogram>,
    payload: Family<NameLabel, Histogram, fn() -> Histogram>,
    batches: Histogram,
    parts: Counter,
    waiting: Gauge,
}

impl CommandMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            answers: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
            payload: Family::new_with_constructor(bytes as fn() -> Histogram),
            batches: Histogram::new(BATCH_BUCKETS),
            parts: Counter::default(),
            waiting: Gauge::default(),
        };
        register(registry, "confab_gateway_commands", metrics.answers.clone());
        register(
            registry,
            "confab_gateway_command_latency",
            metrics.latency.clone(),
        );
        register(
            registry,
            "confab_gateway_command_batch",
            metrics.batches.clone(),
        );
        register(
            registry,
            "confab_gateway_command_parts",
            metrics.parts.clone(),
        );
        register(
            registry,
            "confab_gateway_commands_waiting",
            metrics.waiting.clone(),
        );
        register(
            registry,
            "confab_gateway_command_payload",
            metrics.payload.clone(),
        );
        let names = || Command::NAMES.into_iter().chain(Query::NAMES);
        let label = |command| CommandLabels {
            command,
            result: name(None),
        };
        at_zero(&metrics.answers, names().map(label));
        at_zero(
            &metrics.latency,
            names().map(|command| NameLabel { command }),
        );
        at_zero(
            &metrics.payload,
            names().map(|command| NameLabel { command }),
        );
        metrics
    }

    pub(crate) fn command(&self, command: &'static str, code: Option<Code>, took: Duration) {
        self.answers
            .get_or_create(&CommandLabels {
                command,
                result: name(code),
            })
            .inc();
        self.latency
            .get_or_create(&NameLabel { command })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn query(&self, query: &'static str, code: Option<Code>, took: Duration) {
        self.command(query, code, took);
    }

    /// The payload of a command that goes to a worker.
    pub(crate) fn payload(&self, command: &'static str, bytes: usize) {
        self.payload
            .get_or_create(&NameLabel { command })
            .observe(observed(bytes as u64));
    }

    /// The payload of a query's answer.
    pub(crate) fn answer(&self, query: &'static str, answer: &Answer) {
        self.payload(query, weight(answer));
    }

    /// A part of an answer came.
    pub(crate) fn part(&self) {
        self.parts.inc();
    }

    /// So many commands wait.
    pub(crate) fn waiting(&self, commands: usize) {
        self.waiting
            .set(i64::try_from(commands).unwrap_or(i64::MAX));
    }

    pub(crate) fn batch(&self, commands: usize) {
        self.batches
            .observe(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
    }
}

/// About how many bytes an answer carries: its JSON texts, and the size in memory of what is none.
fn weight(answer: &Answer) -> usize {
    let texts = |items: &[JsonText]| items.iter().map(|item| item.as_str().len()).sum();
    match answer {
        Answer::Object(body) => body.as_str().len(),
        Answer::Page { items, .. } => texts(items),
        Answer::Log { events, .. } => texts(events),
        Answer::Events { events } => events.iter().map(|event| event.json.as_str().len()).sum(),
        Answer::Ranges(ranges) => {
            let events = ranges.iter().flatten();
            events.map(|event| event.json.as_str().len()).sum()
        }
        Answer::Revocations { revocations, .. } => size_of_val(revocations.as_slice()),
        Answer::Users(users) => users.iter().map(|user| user.as_str().len()).sum(),
        Answer::Memberships(users) => users
            .iter()
            .map(|user| size_of_val(user.memberships.as_slice()))
            .sum(),
    }
}
