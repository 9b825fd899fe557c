//! The conditions of NATS that the log tells of, whoever meets them.

use std::time::Duration;

use confab_protocol::condition::{Condition, Monitor};

use crate::connection::Bus;

/// Time for which something on a connected NATS may fail until that is told: leaders are elected, and servers start, in less.
const REPORT_DELAY: Duration = Duration::from_secs(2);

/// The connection.
pub(crate) const NATS_CONDITION: Condition = Condition {
    name: "nats",
    fails: "NATS is not connected",
    holds: "connected to NATS",
    remedy: "see that a server of --nats-url runs, can be reached from here and takes this process's credentials",
    patience: Duration::ZERO,
};
/// The gateway's reading of the feed.
pub(crate) const FEED_CONDITION: Condition = Condition {
    name: "feed",
    fails: "the stream of events cannot be read",
    holds: "the stream of events is read again",
    remedy: "see that JetStream is on and has a leader and room for the stream CONFAB_EVENTS, and that this process may use it",
    patience: REPORT_DELAY,
};
/// The gateway's watch of revocations in NATS.
pub(crate) const REVOCATIONS_BUCKET: Condition = Condition {
    name: "revocations_bucket",
    fails: "the bucket of revocations cannot be watched: they are only read from workers, every few seconds",
    holds: "the bucket of revocations is watched again",
    remedy: "see that JetStream is on and has a leader and room for the stream KV_confab_revocations, and that this process may use it",
    patience: REPORT_DELAY,
};
/// The worker's answers to gateways.
pub(crate) const ANSWERS_CONDITION: Condition = Condition {
    name: "answers",
    fails: "NATS does not take answers: gateways ask again",
    holds: "NATS takes answers again",
    remedy: "look at the load of NATS and of this process's link to it",
    patience: Duration::ZERO,
};
/// The presence of workers that a gateway can ask.
pub(crate) const WORKERS_CONDITION: Condition = Condition {
    name: "workers",
    fails: "no worker is heard of: commands and queries are not carried out",
    holds: "a worker is heard of again",
    remedy: "see that workers run, are ready, and use the same NATS and account",
    patience: Duration::ZERO,
};

/// All of them.
pub const BUS_CONDITIONS: &[Condition] = &[
    NATS_CONDITION,
    FEED_CONDITION,
    REVOCATIONS_BUCKET,
    ANSWERS_CONDITION,
    WORKERS_CONDITION,
];

impl Bus {
    /// Notes the failure of something that needs NATS. While NATS is away nothing is noted: that is told instead, once.
    pub fn failed(&self, monitor: &Monitor, error: &(dyn std::error::Error + 'static)) {
        if self.is_connected() {
            monitor.failed(error);
        }
    }
}
