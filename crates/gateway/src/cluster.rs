//! This gateway among the others: who is online where, signals between gateways, revoked tokens, and whether NATS is reached.

pub(crate) mod degraded;
pub(crate) mod presence;
pub(crate) mod revocations;
pub(crate) mod signals;
