//! What a path names. What is no id names nothing that exists, and is answered like a stranger's.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId, SessionId, UserId};

use super::problem::Problem;

/// The conversation that `{id}` names.
#[derive(Debug)]
pub(super) struct InConversation(pub(super) ConversationId);

/// The session that `{id}` names. What is no id is refused: of a session that is not there nothing is told either.
#[derive(Debug)]
pub(super) struct OfSession(pub(super) SessionId);

/// The message that `{id}` names.
#[derive(Debug)]
pub(super) struct OfMessage(pub(super) EventId);

/// The participant that `{user}` names.
#[derive(Debug)]
pub(super) struct OfUser(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for InConversation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(parts, state, "id", Code::ConversationNotFound)
            .await
            .map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfMessage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(parts, state, "id", Code::MessageNotFound)
            .await
            .map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(parts, state, "user", Code::ParticipantNotFound)
            .await
            .map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        named(parts, state, "id", Code::Validation)
            .await
            .map(Self)
            .map_err(|_absent| Failure::field("id", "must be a session's id").into())
    }
}

async fn named<T: FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
    absent: Code,
) -> Result<T, Problem> {
    // A path whose percent-encoding is no UTF-8 has no parameters at all.
    let params = RawPathParams::from_request_parts(parts, state).await.ok();
    let text = params
        .iter()
        .flatten()
        .find(|(key, _)| *key == name)
        .map(|(_, text)| text);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::of(absent).into())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(path: &str) -> u16 {
        let router = Router::new().route(
            "/{id}/{user}",
            get(async |_: InConversation, OfUser(user): OfUser| user.to_string()),
        );
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn what_is_no_id_is_not_found() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(status(&format!("/{id}/auth0%7Cann")).await, 200);
        for path in ["/1/a", "/%ff/a", "/%00/a"] {
            assert_eq!(status(path).await, 404, "{path}");
        }
        for user in ["%00", "%ff", &"x".repeat(129)] {
            assert_eq!(status(&format!("/{id}/{user}")).await, 404, "{user}");
        }
    }
}
