//! The history checker: compares what clients asked, got and received with Postgres (promise 4).

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
