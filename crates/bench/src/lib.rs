//! What confab costs and how fast it is, beside what its parts can do on the same machine in the same run.
//!
//! A scenario starts a confab of its own ([`stack`]) or uses a running one ([`target`]), puts a load on it ([`load`]) and gives a
//! [`output::Measured`]. Absolute numbers say more about the machine than about confab: `ratios` sets them in relation.

mod command;
mod error;
mod limits;
mod load;
mod output;
mod processes;
mod ratios;
mod report;
mod scenario;
mod seed;
mod stack;
mod target;
mod tokens;

pub use command::{BenchArgs, run};
pub use error::Error;
