//! What clients asked for, were answered and heard, compared with what Postgres has: each command stored as it was answered, and
//! everyone told exactly what promise 4 owes it. The comparison is pure and knows nothing of the service's code.

mod actor;
mod check;
mod client;
mod commands;
mod deliveries;
mod driver;
mod ledger;
mod library;
mod load;
mod marks;
mod presence;
mod record;
mod signals;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use client::{HistoryClient, Profile};
pub(crate) use load::{ARRIVAL_TIMEOUT, HistoryLoad, LoadShape, assert_told};
pub(crate) use record::{Generation, ReceivedItem};
pub(crate) use socket::{End, Socket};
