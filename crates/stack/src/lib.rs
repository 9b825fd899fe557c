//! Finds, starts, waits for, kills and restarts NATS, Postgres and confab processes; cuts links.
//!
//! What this crate starts ends with its owner: [`Process`] kills on drop, and a small watcher kills the
//! process when its owner was killed itself. Every wait has a deadline, and every error says what to do.

mod error;
mod folder;
mod http;
mod launch;
mod nats;
mod port;
mod postgres;
mod process;
mod programs;
mod proxy;
mod service;
mod signals;

pub use error::Error;
pub use http::{get, get_at};
pub use launch::Launch;
pub use nats::{Nats, NatsSettings};
pub use port::{free_port, is_free};
pub use postgres::{Durability, Postgres, PostgresSettings};
pub use process::Process;
pub use programs::Programs;
pub use proxy::{Proxy, Traffic};
pub use service::Service;
