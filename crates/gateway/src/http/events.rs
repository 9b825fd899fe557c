//! `/v1/conversations/{id}/events`: the log as it is.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use confab_protocol::ids::ConversationId;
use confab_protocol::query::Log;

use super::App;
use super::answer;
use super::pages::gather_log;
use super::params::Params;
use super::path::InConversation;
use super::problem::Problem;
use super::who::Who;
use crate::api_docs::openapi::answers;

/// A conversation's log as it is: every event in order.
///
/// What a client reads after `truncated`, with `after` one below its `fromSeq`. A message that was edited or deleted since stands
/// at its seq with its present content or none.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/events",
    operation_id = "listEvents",
    tag = "messages",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("after" = Option<u64>, Query, description = "Only above this seq; from the beginning when it is not given."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most, 1 to 1000; 100 when it is not given. One out of its range is refused.")
    ),
    responses((status = 200, body = answers::EventPage, description = "A part of the log; it may hold fewer than `limit`."))
)]
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
