//! The conditions of a gateway that the log tells of.

use std::time::Duration;

use confab_protocol::condition::Condition;

/// How long something may fail until that is told that is tried again within a second: leaders are elected, and servers start, in less.
const FAILURE_DELAY: Duration = Duration::from_secs(2);

/// Records of sessions in their bucket.
pub(crate) const RECORDS_CONDITION: Condition = Condition {
    name: "session_records",
    fails: "records of sessions cannot be written: sessions may not be resumable at other gateways",
    holds: "records of sessions are written again",
    remedy: "see that JetStream is on and has a leader and room for the stream KV_confab_sessions, and that this process may use it",
    patience: FAILURE_DELAY,
};
/// Revocations as workers read them.
pub(crate) const REVOCATIONS_CONDITION: Condition = Condition {
    name: "revocations",
    fails: "revocations cannot be read from workers: a gateway that never read them is not ready",
    holds: "revocations are read from workers again",
    remedy: "look at the logs of the workers",
    patience: FAILURE_DELAY,
};
/// What workers are asked.
pub(crate) const WORKER_ANSWERS: Condition = Condition {
    name: "worker_answers",
    fails: "workers leave commands or queries without an answer",
    holds: "workers answer again",
    remedy: "look at the logs and the load of the workers, and see that NATS lets them subscribe confab.v1.>",
    patience: FAILURE_DELAY,
};
/// Events that the feed does not carry.
pub(crate) const ANNOUNCED_CONDITION: Condition = Condition {
    name: "announced_events",
    fails: "the feed does not carry what is committed: workers announce it, and sessions are told from Postgres",
    holds: "the feed carries again what is committed",
    remedy: "the logs of the workers and their /ready say why, and what to do",
    patience: FAILURE_DELAY,
};
/// The hub.
pub(crate) const HUB_CONDITION: Condition = Condition {
    name: "hub",
    fails: "the hub is far behind the feed: events come late, and this gateway is not ready",
    holds: "the hub keeps up with the feed again",
    remedy: "give this gateway more processors, or run more gateways",
    patience: Duration::ZERO,
};
/// The past of the stream.
pub(crate) const WINDOW_CONDITION: Condition = Condition {
    name: "window",
    fails: "the past of the stream of events cannot be read: the replay window is not filled, and this gateway is not ready",
    holds: "the past of the stream of events is read",
    remedy: "see that JetStream is on and has a leader for the stream CONFAB_EVENTS, and that this process may use it",
    patience: FAILURE_DELAY,
};
/// The listener.
pub(crate) const ACCEPTING_CONDITION: Condition = Condition {
    name: "accepting",
    fails: "connections cannot be accepted",
    holds: "connections are accepted again",
    remedy: "raise the limit of open files, or run more gateways",
    patience: Duration::ZERO,
};

/// All of them.
pub const CONDITIONS: &[Condition] = &[
    RECORDS_CONDITION,
    REVOCATIONS_CONDITION,
    WORKER_ANSWERS,
    ANNOUNCED_CONDITION,
    HUB_CONDITION,
    WINDOW_CONDITION,
    ACCEPTING_CONDITION,
];
