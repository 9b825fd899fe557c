//! The declarations: what is not here is not registered, and what is not registered is not here.

use confab_protocol::metric::{Metric, MetricKind};

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        unit,
        kind,
        labels,
        help,
    }
}

pub(super) const COMMANDS: Metric = metric(
    "confab_worker_commands",
    "",
    MetricKind::Counter,
    &["command", "result"],
    "Commands answered, by name and result (OK or the error code)",
);
pub(super) const COMMAND_LATENCY: Metric = metric(
    "confab_worker_command_latency",
    "seconds",
    MetricKind::Histogram,
    &["command"],
    "Time from a command's arrival to its outcome, by name",
);
pub(super) const COMMAND_PAYLOAD: Metric = metric(
    "confab_worker_command_payload",
    "bytes",
    MetricKind::Histogram,
    &["command"],
    "About how many bytes a command takes on the wire, by name",
);
pub(super) const QUERIES: Metric = metric(
    "confab_worker_queries",
    "",
    MetricKind::Counter,
    &["query", "result"],
    "Queries answered, by name and result (OK or the error code)",
);
pub(super) const QUERY_LATENCY: Metric = metric(
    "confab_query_latency",
    "seconds",
    MetricKind::Histogram,
    &["query"],
    "Time of a query in Postgres, by name",
);
pub(super) const QUERY_PAYLOAD: Metric = metric(
    "confab_worker_query_payload",
    "bytes",
    MetricKind::Histogram,
    &["query"],
    "Size of a query's answer, by name",
);
pub(super) const QUERIES_WAITING: Metric = metric(
    "confab_worker_queries_waiting",
    "",
    MetricKind::Gauge,
    &["kind"],
    "Queries that wait for a slot, by kind: page (for clients), session (for gateways)",
);
pub(super) const QUERIES_RUNNING: Metric = metric(
    "confab_worker_queries_running",
    "",
    MetricKind::Gauge,
    &["kind"],
    "Queries that are being answered, by kind",
);
pub(super) const BATCH_EVENTS: Metric = metric(
    "confab_commit_batch_events",
    "",
    MetricKind::Histogram,
    &[],
    "Messages in one commit",
);
pub(super) const BATCH_LATENCY: Metric = metric(
    "confab_commit_batch_latency",
    "seconds",
    MetricKind::Histogram,
    &[],
    "Time of one commit of messages",
);
pub(super) const WAITING: Metric = metric(
    "confab_commit_waiting",
    "",
    MetricKind::Gauge,
    &[],
    "Commands that wait to be committed",
);
pub(super) const POSTPONED: Metric = metric(
    "confab_commit_postponed",
    "",
    MetricKind::Gauge,
    &[],
    "Commands that wait apart because what they change is locked",
);
pub(super) const LOCKED: Metric = metric(
    "confab_commit_locked",
    "",
    MetricKind::Counter,
    &[],
    "Times that a command was left out because what it changes was locked",
);
pub(super) const LOCK_WAIT: Metric = metric(
    "confab_commit_lock_wait",
    "seconds",
    MetricKind::Histogram,
    &[],
    "Time of what was carried out by waiting for a lock, or gave it up; of read marks, since they came",
);
pub(super) const CREATED: Metric = metric(
    "confab_conversations_created",
    "",
    MetricKind::Counter,
    &["type"],
    "Conversations created, by type",
);
pub(super) const DELETED: Metric = metric(
    "confab_conversations_deleted",
    "",
    MetricKind::Counter,
    &[],
    "Conversations deleted, by an admin or with their last member",
);
pub(super) const MALFORMED: Metric = metric(
    "confab_worker_malformed",
    "",
    MetricKind::Counter,
    &[],
    "Requests that no gateway of this version sends",
);
pub(super) const LATE: Metric = metric(
    "confab_worker_late",
    "",
    MetricKind::Counter,
    &[],
    "Commands not carried out because they came behind the end of their budget",
);
pub(super) const UNSENT: Metric = metric(
    "confab_worker_answers_unsent",
    "",
    MetricKind::Counter,
    &[],
    "Answers that could not be sent to their gateway",
);
pub(super) const RELAYED: Metric = metric(
    "confab_outbox_relayed",
    "",
    MetricKind::Counter,
    &[],
    "Events published by the relay",
);
pub(super) const BREAKS: Metric = metric(
    "confab_outbox_breaks",
    "",
    MetricKind::Counter,
    &[],
    "Losses of the stream that were found",
);
pub(super) const LINGERING: Metric = metric(
    "confab_outbox_lingering",
    "",
    MetricKind::Gauge,
    &[],
    "Commits that were not published within a second, as last seen, counted up to 10,000",
);
pub(super) const OLDEST: Metric = metric(
    "confab_outbox_oldest",
    "seconds",
    MetricKind::Gauge,
    &[],
    "Age of the oldest commit that is not published, by this worker's own clock; 0 where there is none. Above 2 s gateways read from workers what the stream does not carry",
);
pub(super) const STEPPED_OVER: Metric = metric(
    "confab_outbox_stepped_over",
    "",
    MetricKind::Gauge,
    &[],
    "Commits that cannot be published and are tried again rarely, as last seen, counted up to 10,000",
);
pub(super) const UNPUBLISHABLE: Metric = metric(
    "confab_outbox_unpublishable",
    "",
    MetricKind::Counter,
    &[],
    "Commits found to have events that cannot be published; each has a line in the log",
);
pub(super) const LEFT_TO_RELAY: Metric = metric(
    "confab_outbox_left_to_relay",
    "",
    MetricKind::Counter,
    &[],
    "Commits for which the publisher's queue had no room, so that they are left to the relay",
);
pub(super) const QUEUED: Metric = metric(
    "confab_outbox_queued",
    "bytes",
    MetricKind::Gauge,
    &[],
    "Events of commits that wait to be published or to be acknowledged, the relay's not counted",
);
pub(super) const SWEPT: Metric = metric(
    "confab_swept_rows",
    "",
    MetricKind::Counter,
    &["table"],
    "Rows deleted because they were over, by table (outbox, creation_keys, settled_keys, revocations)",
);
pub(super) const SWEEP_BEHIND: Metric = metric(
    "confab_sweep_behind",
    "seconds",
    MetricKind::Gauge,
    &["table"],
    "For how long the oldest row that is left should have been swept, by table, as last seen",
);

/// Every metric of a worker.
pub const METRICS: &[Metric] = &[
    COMMANDS,
    COMMAND_LATENCY,
    COMMAND_PAYLOAD,
    QUERIES,
    QUERY_LATENCY,
    QUERY_PAYLOAD,
    QUERIES_WAITING,
    QUERIES_RUNNING,
    BATCH_EVENTS,
    BATCH_LATENCY,
    WAITING,
    POSTPONED,
    LOCKED,
    LOCK_WAIT,
    CREATED,
    DELETED,
    MALFORMED,
    LATE,
    UNSENT,
    RELAYED,
    BREAKS,
    LINGERING,
    OLDEST,
    STEPPED_OVER,
    UNPUBLISHABLE,
    LEFT_TO_RELAY,
    QUEUED,
    SWEPT,
    SWEEP_BEHIND,
];
