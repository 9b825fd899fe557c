//! `/v1/sessions`: list one's own, revoke one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use confab_protocol::command::{Caller, Command, Outcome, Revoke};
use confab_protocol::error::{Code, Failure};
use confab_protocol::resource::Session;
use confab_protocol::revocation::{RevocationTarget, RevocationView};
use serde::Serialize;

use super::App;
use super::params::NoParams;
use super::path::OfSession;
use super::problem::Problem;
use super::who::Who;

/// The caller's open sessions, the newest first.
#[derive(Debug, Serialize)]
pub(super) struct SessionsAnswer {
    sessions: Vec<Session>,
}

/// What is revoked, now or since before.
#[derive(Debug, Serialize)]
pub(super) struct RevocationAnswer {
    revocation: RevocationView,
}

/// `GET /v1/sessions`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
) -> Result<Json<SessionsAnswer>, Problem> {
    let caller = who.reads()?;
    let sessions = app.directory.sessions(caller).await?;
    Ok(Json(SessionsAnswer { sessions }))
}

/// `DELETE /v1/sessions/{id}`. It is bound to the caller's user: another's session stays, and nothing is told of it.
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
    let revocation = RevocationView::from(&revocation);
    Ok(RevocationAnswer { revocation })
}
