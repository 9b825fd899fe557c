//! `/v1/conversations/{id}/events`: the log as it is.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use confab_protocol::query::Log;

use super::App;
use super::answer;
use super::pages::gather_log;
use super::params::Params;
use super::path::InConversation;
use super::problem::Problem;
use super::who::Who;

/// `GET /v1/conversations/{id}/events`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    who: Who,
    InConversation(conversation): InConversation,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let mut params = Params::parse(query.as_deref());
    let log = Log {
        caller,
        conversation,
        after: params.parsed("after", "must be a seq").unwrap_or(0),
        limit: params.limit(1..=1000, 100),
    };
    params.finish()?;
    let (events, head) = gather_log(&app, &who, log).await?;
    Ok(answer::list(
        "events",
        &events,
        ("headSeq", &head.to_string()),
    ))
}
