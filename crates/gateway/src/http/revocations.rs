//! `/v1/revocations`: for the product's own backend.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{SessionId, UserId};
use confab_protocol::json::Fields;
use confab_protocol::revocation::RevocationTarget;
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;

use super::body::JsonBody;
use super::params::NoParams;
use super::problem::Problem;
use super::sessions::execute;
use super::who::Who;
use super::{App, idempotency};
use crate::api_docs::openapi::answers::RevocationAnswer;
use crate::api_docs::openapi::bodies;
use crate::keys;

/// The longest login, in characters, as in a token.
const LOGIN_CHARS: usize = 128;

/// Revoke a session, a login, or a user's tokens.
///
/// Only with the scope `confab:admin`. Within a second every gateway that has NATS refuses what is revoked, and closes
/// its sockets. Kept until the newest token that it covers has expired, or the session cannot be resumed. A repeat is answered like the
/// first time; without an `Idempotency-Key` one of a user's tokens also covers those that were issued meanwhile. `issuedBefore` must not lie
/// in the future.
#[utoipa::path(
    post,
    path = "/v1/revocations",
    operation_id = "revoke",
    tag = "sessions",
    request_body(content = bodies::Revoke, description = "What is revoked."),
    responses((status = 201, body = RevocationAnswer, description = "It is revoked, now or before."))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<RevocationAnswer>), Problem> {
    let caller = who.administers()?;
    let target = read_target(&body, OffsetDateTime::now_utc())?;
    let key = idempotency::key(&headers)?;
    let key = key.map(|key| keys::of_revocation(&caller.tenant, &key));
    let answer = execute(&app, who, caller, (target, key)).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) fn read_target(body: &[u8], now: OffsetDateTime) -> Result<RevocationTarget, Failure> {
    let mut fields = Fields::parse(body)?;
    let named: Vec<_> = ["sessionId", "loginSessionId", "userId"]
        .into_iter()
        .filter(|name| fields.has(name))
        .collect();
    let first = named.first().copied();
    let session = fields.take::<SessionId>("sessionId");
    let login = fields.take::<String>("loginSessionId");
    let user = fields.take::<UserId>("userId");
    let issued_before = fields.take::<Timestamp>("issuedBefore");
    match first {
        None => fields.reject("userId", "must be given, or sessionId, or loginSessionId"),
        Some(first) => {
            for name in named.iter().skip(1) {
                fields.reject(name, format!("must not be given beside {first}"));
            }
        }
    }
    if login.as_deref().is_some_and(|login| !is_login(login)) {
        fields.reject(
            "loginSessionId",
            "must be 1 to 128 characters without control characters",
        );
    }
    if issued_before.is_some() && first != Some("userId") {
        fields.reject("issuedBefore", "must not be given without userId");
    }
    if issued_before.is_some_and(|before| before.to_datetime() > now) {
        fields.reject("issuedBefore", "must not lie in the future");
    }
    fields.finish()?;
    let (session, login) = (
        session.map(|session| RevocationTarget::Session {
            session,
            user: None,
        }),
        login.map(RevocationTarget::Login),
    );
    let user = user.map(|user| RevocationTarget::User {
        user,
        issued_before,
    });
    session
        .or(login)
        .or(user)
        .ok_or_else(|| Failure::of(Code::Validation))
}

fn is_login(text: &str) -> bool {
    !text.is_empty()
        && text.chars().nth(LOGIN_CHARS).is_none()
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<RevocationTarget, Vec<String>> {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        read_target(body.as_bytes(), now).map_err(|failure| {
            assert_eq!(failure.code, Code::Validation);
            let errors = failure.extension.errors.into_iter();
            errors.map(|error| error.pointer).collect()
        })
    }

    fn user(name: &str, before: Option<&str>) -> RevocationTarget {
        RevocationTarget::User {
            user: name.parse().unwrap(),
            issued_before: before.map(|before| before.parse().unwrap()),
        }
    }

    #[test]
    fn exactly_one_thing_is_revoked() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let session = RevocationTarget::Session {
            session: id.parse().unwrap(),
            user: None,
        };
        assert_eq!(read(&format!(r#"{{"sessionId":"{id}"}}"#)), Ok(session));
        let login = RevocationTarget::Login("l".to_owned());
        assert_eq!(read(r#"{"loginSessionId":"l","userId":null}"#), Ok(login));
        assert_eq!(read(r#"{"userId":"a"}"#), Ok(user("a", None)));
        let before = "2020-01-01T00:00:00Z";
        let dated = format!(r#"{{"userId":"a","issuedBefore":"{before}"}}"#);
        assert_eq!(read(&dated), Ok(user("a", Some(before))));
    }

    #[test]
    fn every_bad_field_is_named() {
        let long = format!(r#"{{"loginSessionId":"{}"}}"#, "x".repeat(129));
        let cases = [
            ("{}", vec!["/userId"]),
            (
                r#"{"sessionId":"x","loginSessionId":"","userId":"a","typo":1}"#,
                vec![
                    "/sessionId",
                    "/loginSessionId",
                    "/userId",
                    "/loginSessionId",
                    "/typo",
                ],
            ),
            (
                r#"{"loginSessionId":"l","issuedBefore":"2020-01-01T00:00:00Z"}"#,
                vec!["/issuedBefore"],
            ),
            (
                r#"{"userId":"a","issuedBefore":"2999-01-01T00:00:00Z"}"#,
                vec!["/issuedBefore"],
            ),
            (
                r#"{"userId":"","issuedBefore":"yesterday"}"#,
                vec!["/userId", "/issuedBefore"],
            ),
            (r#"{"loginSessionId":"a\nb"}"#, vec!["/loginSessionId"]),
            (long.as_str(), vec!["/loginSessionId"]),
            ("[]", vec![""]),
        ];
        for (body, pointers) in cases {
            assert_eq!(read(body).unwrap_err(), pointers, "{body}");
        }
    }
}
