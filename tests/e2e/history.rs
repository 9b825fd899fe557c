//! What clients asked for, were answered and heard, compared with what Postgres has: each command stored as it was answered, and
//! everyone told exactly what promise 4 owes it. The comparison is pure and knows nothing of the service's code.

mod check;
mod commands;
mod deliveries;
mod ledger;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use check::{Violation, late, violations};
pub(crate) use ledger::{Ledger, Log, Membership, Row};
pub(crate) use record::{Account, Command, Deed, Heard, Life, Outcome, Positions, Told};
