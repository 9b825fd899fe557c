//! `/v1/sessions`: list one's own, revoke one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use confab_protocol::command::{Caller, Command, Outcome, Revoke};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::SessionId;
use confab_protocol::resource::Session;
use confab_protocol::revocation::{RevocationTarget, RevocationView};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::params::NoParams;
use super::path::OfSession;
use super::problem::Problem;
use super::who::Who;

/// The caller's open sessions, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionsAnswer {
    /// The sessions.
    pub(super) sessions: Vec<Session>,
}

/// What is revoked, now or since before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevocationAnswer {
    /// The revocation.
    pub(super) revocation: RevocationView,
}

/// The caller's open sessions, the newest first.
///
/// Every gateway is asked, and those that answer within a second are heard: a session at one that is cut off meanwhile may be
/// missing.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    operation_id = "listSessions",
    tag = "sessions",
    responses((status = 200, body = SessionsAnswer, description = "The sessions."))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
) -> Result<Json<SessionsAnswer>, Problem> {
    let caller = who.reads()?;
    let sessions = app.directory.sessions(caller).await?;
    Ok(Json(SessionsAnswer { sessions }))
}

/// Revoke one of the caller's sessions.
///
/// Its socket closes at whichever gateway holds it, and it cannot be resumed; its token stays good for a new one. The revocation is bound to
/// the caller's user: another's session stays, and nothing is told of it, nor whether a session was there at all.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}",
    operation_id = "revokeSession",
    tag = "sessions",
    params(("id" = SessionId, Path, description = "The session.")),
    responses((status = 200, body = RevocationAnswer, description = "It is revoked, now or before."))
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    who: Who,
    OfSession(session): OfSession,
    _: NoParams,
) -> Result<Json<RevocationAnswer>, Problem> {
    let caller = who.writes()?;
    let user = Some(caller.user.clone());
    let target = RevocationTarget::Session { session, user };
    execute(&app, who, caller, target).await.map(Json)
}

/// Revokes, at this gateway before the answer.
pub(super) async fn execute(
    app: &App,
    who: Who,
    caller: Caller,
    target: RevocationTarget,
) -> Result<RevocationAnswer, Problem> {
    let command = Command::Revoke(Revoke { target });
    let Outcome::Revoked(revocation) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    app.admission.revocations().apply(&revocation);
    app.directory.tell(&revocation).await;
    let revocation = RevocationView::from(&revocation);
    Ok(RevocationAnswer { revocation })
}
