//! The stateless gateway: HTTP and WebSocket in front, commands and the feed behind.

pub mod echo;
mod ws;
