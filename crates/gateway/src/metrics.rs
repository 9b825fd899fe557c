//! Every metric of a gateway, declared once with its name, unit, labels and meaning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use confab_bus::feed::Break;
use confab_protocol::error::Code;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds, from a fast answer to the end of every budget.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Commands in one message to a worker.
const COMMANDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// More events than this unread in the stream: the gateway lags by seconds, and is not ready.
const LAG: u64 = 50_000;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

const fn name(code: Option<Code>) -> &'static str {
    match code {
        None => "OK",
        Some(code) => code.as_str(),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthLabels {
    transport: &'static str,
    result: &'static str,
}

/// Metrics of tokens.
#[derive(Debug, Clone)]
pub(crate) struct AuthMetrics {
    requests: Family<AuthLabels, Counter>,
    latency: Histogram,
}

impl AuthMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            latency: seconds(),
        };
        registry.register(
            "confab_auth_requests",
            "Requests whose token was looked at, by transport (http, websocket) and result (OK or the error code)",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "confab_auth_latency",
            "Time to verify a token",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        metrics
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
    batches: Histogram,
}

impl CommandMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            answers: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
            batches: Histogram::new(COMMANDS),
        };
        registry.register(
            "confab_gateway_commands",
            "Commands and queries answered, by name and result (OK or the error code)",
            metrics.answers.clone(),
        );
        registry.register_with_unit(
            "confab_gateway_command_latency",
            "Time from a command or query to its answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register(
            "confab_gateway_command_batch",
            "Commands in one message to a worker",
            metrics.batches.clone(),
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

    pub(crate) fn batch(&self, commands: usize) {
        self.batches
            .observe(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Metrics of the feed and the hub, and whether the feed is caught up.
#[derive(Debug, Clone)]
pub(crate) struct FeedMetrics {
    events: Family<KindLabel, Counter>,
    breaks: Family<KindLabel, Counter>,
    questions: Family<KindLabel, Counter>,
    malformed: Counter,
    lag: Gauge,
    sessions: Gauge,
    conversations: Gauge,
    reconciled: Arc<AtomicBool>,
    pending: Arc<AtomicU64>,
}

impl FeedMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Family::default(),
            breaks: Family::default(),
            questions: Family::default(),
            malformed: Counter::default(),
            lag: Gauge::default(),
            sessions: Gauge::default(),
            conversations: Gauge::default(),
            reconciled: Arc::default(),
            pending: Arc::default(),
        };
        registry.register(
            "confab_feed_events",
            "Events read from the feed, by what became of them: delivered, duplicate, held, unheard (no local member)",
            metrics.events.clone(),
        );
        registry.register(
            "confab_feed_breaks",
            "Breaks found in the feed, by kind",
            metrics.breaks.clone(),
        );
        registry.register(
            "confab_hub_questions",
            "What the hub asked workers: read_events (gaps, catching up), memberships",
            metrics.questions.clone(),
        );
        registry.register(
            "confab_feed_malformed",
            "Messages of the feed that are no events",
            metrics.malformed.clone(),
        );
        registry.register(
            "confab_feed_lag",
            "Events of the stream not read yet",
            metrics.lag.clone(),
        );
        registry.register(
            "confab_sessions",
            "Sessions on this gateway",
            metrics.sessions.clone(),
        );
        registry.register(
            "confab_hub_conversations",
            "Conversations with members on this gateway",
            metrics.conversations.clone(),
        );
        metrics
    }

    pub(crate) fn event(&self, kind: &'static str, pending: u64) {
        self.events.get_or_create(&KindLabel { kind }).inc();
        self.lag.set(pending.cast_signed());
        self.pending.store(pending, Ordering::Relaxed);
    }

    pub(crate) fn question(&self, kind: &'static str) {
        self.questions.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn broken(&self, kind: Break) {
        self.breaks
            .get_or_create(&KindLabel {
                kind: kind.as_str(),
            })
            .inc();
    }

    /// Counts a malformed message; says whether it was the first, which alone is logged.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.inc() == 0
    }

    pub(crate) fn observe(&self, sessions: usize, conversations: usize) {
        self.sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.conversations
            .set(i64::try_from(conversations).unwrap_or(i64::MAX));
    }

    pub(crate) fn reconciling(&self) {
        self.reconciled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn reconciled(&self) {
        self.reconciled.store(true, Ordering::Relaxed);
    }

    /// Whether the feed was reconciled after its last beginning, and does not lag by seconds.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.reconciled.load(Ordering::Relaxed) && self.pending.load(Ordering::Relaxed) < LAG
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabel {
    code: u32,
}

/// Metrics of sockets.
#[derive(Debug, Clone)]
pub(crate) struct SocketMetrics {
    open: Gauge,
    ended: Family<CloseLabel, Counter>,
}

/// Counts a socket as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenSocket(Gauge);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl SocketMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            ended: Family::default(),
        };
        registry.register(
            "confab_sockets",
            "WebSocket connections",
            metrics.open.clone(),
        );
        registry.register(
            "confab_sockets_ended",
            "WebSocket connections that ended, by close code (1006: lost)",
            metrics.ended.clone(),
        );
        metrics
    }

    pub(crate) fn opened(&self) -> OpenSocket {
        self.open.inc();
        OpenSocket(self.open.clone())
    }

    pub(crate) fn ended(&self, code: u16) {
        self.ended
            .get_or_create(&CloseLabel {
                code: u32::from(code),
            })
            .inc();
    }
}

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

/// Metrics of HTTP requests.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: Family<HttpLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
}

impl HttpMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(seconds as fn() -> Histogram),
        };
        registry.register(
            "confab_http_requests",
            "HTTP requests answered, by route, method and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "confab_http_request_latency",
            "Time from a request's head to its answer's head, by route",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        metrics
    }

    pub(crate) fn observe(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels = HttpLabels {
            route: route.to_owned(),
            method: method.to_owned(),
            status: u32::from(status),
        };
        self.requests.get_or_create(&labels).inc();
        self.latency
            .get_or_create(&RouteLabel {
                route: route.to_owned(),
            })
            .observe(took.as_secs_f64());
    }
}

/// Metrics of revocations.
#[derive(Debug, Clone)]
pub(crate) struct RevocationMetrics {
    known: Gauge,
    malformed: Counter,
}

impl RevocationMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            known: Gauge::default(),
            malformed: Counter::default(),
        };
        registry.register(
            "confab_revocations",
            "Revocations that this gateway knows and that have not expired",
            metrics.known.clone(),
        );
        registry.register(
            "confab_revocations_malformed",
            "Messages among the revocations that are none",
            metrics.malformed.clone(),
        );
        metrics
    }

    pub(crate) fn known(&self, revocations: usize) {
        self.known
            .set(i64::try_from(revocations).unwrap_or(i64::MAX));
    }

    /// Counts a malformed message; says whether it was the first, which alone is logged.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.inc() == 0
    }
}
