//! End-to-end tests of confab's promises on real processes, NATS and Postgres, one file per promise.

#[cfg(test)]
mod arrivals;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod content;
#[cfg(test)]
mod conversations;
#[cfg(test)]
mod degraded;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod encodings;
#[cfg(test)]
mod events;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod frozen_worker;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod history;
#[cfg(test)]
mod http_headers;
#[cfg(test)]
mod lingering;
#[cfg(test)]
mod liveness;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod membership_rounds;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod model;
#[cfg(test)]
mod nats_faults;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod order;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod pagination;
#[cfg(test)]
mod participants;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod query_shares;
#[cfg(test)]
mod rate_limits;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod scopes;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod slow_commands;
#[cfg(test)]
mod slow_consumer;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod two_gateways;
#[cfg(test)]
mod user_bounds;
#[cfg(test)]
mod window;
#[cfg(test)]
mod worker_killed;
#[cfg(test)]
mod worker_retry;
