//! The wire types of confab: ids, commands, events, frames, resources, errors. No IO, no async.

pub mod chain;
pub mod check;
pub mod command;
pub mod condition;
pub mod degraded;
pub mod error;
pub mod event;
pub mod fair;
pub mod frame;
pub mod ids;
pub mod json;
pub mod limits;
pub mod lingering;
pub mod metric;
pub mod query;
pub mod resource;
pub mod revocation;
pub mod schema;
pub mod signal;
pub mod timestamp;
pub mod trace;
pub mod wire;
