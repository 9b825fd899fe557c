//! The WebSocket side of the gateway.

pub(crate) mod frames;
pub(crate) mod socket;
pub(crate) mod upgrade;
