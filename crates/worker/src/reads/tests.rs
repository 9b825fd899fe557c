//! Queries against a real Postgres.

mod memberships;
mod pages;

use std::time::Duration;

use confab_protocol::limits;
use confab_protocol::query::{Answer, Query, QueryOutcome};
use confab_protocol::wire::encode;

use super::answer;
use crate::testing::Fixture;

/// The answer to a query, which fits one NATS message.
async fn ask(fixture: &Fixture, query: Query) -> Answer {
    let outcome: QueryOutcome = answer(&fixture.pool, &query, Duration::from_secs(20)).await;
    let bytes = encode(&outcome).unwrap().len();
    assert!(bytes <= limits::RPC, "{} took {bytes} bytes", query.name());
    outcome.unwrap()
}
