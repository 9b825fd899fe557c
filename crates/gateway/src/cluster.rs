//! This gateway among the others: who is online where, signals between gateways, and whether NATS is reached.

pub(crate) mod degraded;
pub(crate) mod presence;
pub(crate) mod signals;
