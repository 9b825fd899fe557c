//! `/v1/sessions`: list one's own, revoke one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use confab_protocol::command::{Caller, Command, Outcome, Revoke};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ClientId, SessionId};
use confab_protocol::revocation::{RevocationTarget, RevocationView};
use confab_protocol::timestamp::Timestamp;
use time::{Duration, OffsetDateTime};

use super::params::NoParams;
use super::path::OfSession;
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency};
use crate::api_docs::openapi::answers::{RevocationAnswer, SessionsAnswer};
use crate::sessions::records::KnownSession;

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
    let _turn = who.asks_all(&app).await?;
    let sessions = app.directory.sessions(caller).await?;
    Ok(Json(SessionsAnswer { sessions }))
}

/// Revoke one of the caller's sessions.
///
/// Its socket closes at whichever gateway holds it, and it cannot be resumed; its token stays good for a new one. The revocation is bound to
/// the caller's user: another's session stays, and nothing is told of it, nor whether a session was there at all. A revocation is kept for as
/// long as the session could be resumed; of a user's own, at most 1,000 at once (`RATE_LIMITED` beyond that).
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
    headers: HeaderMap,
) -> Result<Json<RevocationAnswer>, Problem> {
    let caller = who.writes()?;
    // A session ends once: there is nothing to keep it for.
    idempotency::key(&headers)?;
    let user = Some(caller.user.clone());
    let target = RevocationTarget::Session { session, user };
    let known = {
        let _turn = who.asks_all(&app).await?;
        known(&app, &caller, session).await
    };
    match known {
        // Nobody is told which it is: the answer looks the same.
        KnownSession::No => Ok(Json(nothing_revoked(target, app.session_seconds))),
        KnownSession::Maybe => execute(&app, who, caller, (target, None)).await.map(Json),
        KnownSession::Yes(stored) => {
            let answer = execute(&app, who, caller, (target, None)).await?;
            if let Some(stored) = stored {
                app.records.end_stored(session, stored).await;
            }
            Ok(Json(answer))
        }
    }
}

async fn known(app: &App, caller: &Caller, session: SessionId) -> KnownSession {
    let sessions = app.authenticator.revocations().sessions();
    match app.records.knows(session, caller).await {
        // It may have opened in this moment.
        KnownSession::No if sessions.has(&caller.tenant, &caller.user, session) => {
            KnownSession::Yes(None)
        }
        known => known,
    }
}

/// The answer where there is nothing to revoke, and so nothing is kept.
fn nothing_revoked(target: RevocationTarget, seconds: u64) -> RevocationAnswer {
    let now = OffsetDateTime::now_utc();
    let kept = Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
    let (user_id, session_id) = match target {
        RevocationTarget::Session { session, user } => (user, Some(session)),
        RevocationTarget::User { user, .. } => (Some(user), None),
        RevocationTarget::Login(_) => (None, None),
    };
    RevocationAnswer {
        revocation: RevocationView {
            session_id,
            login_session_id: None,
            user_id,
            issued_before: None,
            created_at: Timestamp::new(now),
            expires_at: Timestamp::new(now.saturating_add(kept)),
        },
    }
}

/// Revokes, at this gateway before the answer.
pub(super) async fn execute(
    app: &App,
    who: Who,
    caller: Caller,
    (target, key): (RevocationTarget, Option<ClientId>),
) -> Result<RevocationAnswer, Problem> {
    let command = Command::Revoke(Revoke { target, key });
    let Outcome::Revoked(revocation) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    app.authenticator.revocations().apply(&revocation);
    app.directory.tell(&revocation).await;
    let revocation = RevocationView::from(&revocation);
    Ok(RevocationAnswer { revocation })
}
