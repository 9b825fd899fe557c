//! NATS as confab uses it: connection, subjects, topology, request batches, the feed. The only user of async-nats.

pub mod check;
mod conditions;
mod connection;
mod error;
pub mod feed;
mod gateways;
mod lingering;
mod presence;
mod publish;
pub mod records;
pub mod revocations;
pub mod rpc;
pub mod sessions;
mod signals;
mod subjects;
#[cfg(test)]
mod testing;
mod topology;

pub use conditions::BUS_CONDITIONS;
pub use connection::{AuthSettings, Bus, Link, Settings, TlsSettings};
pub use error::{BusError, RpcError};
pub use gateways::{GatewayId, Gateways};
pub use lingering::Announcements;
pub use presence::{PresenceAnswers, Reply};
pub use publish::{Acknowledged, Outgoing, PendingAck};
pub use signals::{Signalled, Signals};
pub use subjects::EVENTS_STREAM;
pub use topology::StreamState;
