//! `/v1/presence`: who is there.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::PresenceSignal;
use confab_protocol::ids::UserId;
use confab_protocol::limits;
use confab_protocol::query::{Answer, Query};

use super::App;
use super::params::Params;
use super::problem::Problem;
use super::who::Who;
use crate::api_docs::openapi::answers::PresenceAnswer;

/// Who is there.
///
/// What the users' sessions say at this moment, at all gateways together, whatever the size of the conversations; who left within the grace period is told as before. Of users who share
/// no conversation with the caller nothing is told, as of those that do not exist; `confab:admin` hears of all of its tenant.
#[utoipa::path(
    get,
    path = "/v1/presence",
    operation_id = "getPresence",
    tag = "participants",
    params(("userIds" = [UserId], Query, min_items = 1, max_items = 100, description = "Whom to ask about: the parameter once for each, 1 to 100.")),
    responses((status = 200, body = PresenceAnswer, description = "Who is there."))
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    who: Who,
    RawQuery(query): RawQuery,
) -> Result<Json<PresenceAnswer>, Problem> {
    let caller = who.reads()?;
    let mut params = Params::parse(query.as_deref());
    let users = params.list("userIds", 1..=limits::PRESENCE_USERS, "must be a user id");
    params.finish()?;
    let tenant = caller.tenant.clone();
    let Answer::Users(users) = app.ask(&who, Query::Sharing { caller, users }).await? else {
        return Err(Failure::of(Code::Internal).into());
    };
    let (told, complete) = if users.is_empty() {
        (Vec::new(), true)
    } else {
        let _turn = who.asks_all(&app).await?;
        app.presence.statuses(&tenant, users).await?
    };
    let told = told.into_iter();
    Ok(Json(PresenceAnswer {
        presences: told
            .map(|(user_id, status)| PresenceSignal { user_id, status })
            .collect(),
        complete,
    }))
}
