//! Queries against a real Postgres.

mod history;
mod log;
mod members;
mod memberships;
mod messages;
mod pages;
mod participants;
mod questions;
mod ranges;
mod recent;
mod scale;
mod unread;

use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::limits;
use confab_protocol::query::{Answer, Query, QueryOutcome};
use confab_protocol::wire::encode;

use super::answer;
use crate::testing::Fixture;

/// The answer to a query, which fits one NATS message.
async fn ask(fixture: &Fixture, query: Query) -> Answer {
    let outcome: QueryOutcome = answer(&fixture.connections, &query, Duration::from_secs(20)).await;
    let bytes = encode(&outcome).unwrap().len();
    assert!(
        bytes <= limits::MAX_RPC_BYTES,
        "{} took {bytes} bytes",
        query.name()
    );
    outcome.unwrap()
}

/// The code that a query is refused with.
async fn refused(fixture: &Fixture, query: Query) -> Code {
    let outcome = answer(&fixture.connections, &query, Duration::from_secs(20)).await;
    outcome.unwrap_err().code
}
