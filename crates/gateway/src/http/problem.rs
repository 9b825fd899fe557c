//! Refusals as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use confab_protocol::error::{Code, Extension, Failure};
use serde::Serialize;

use super::answer::REPLAYED_HEADER;

/// A refusal on its way out: its body is written when the request's id and what the client accepts are known.
#[derive(Debug, Clone)]
pub(crate) struct Problem(pub(super) Failure);

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let failure = &self.0;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(failure.code.status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        set_headers(response.headers_mut(), failure);
        response.extensions_mut().insert(self);
        response
    }
}

fn set_headers(headers: &mut HeaderMap, failure: &Failure) {
    if let Some(challenge) = confab_auth::challenge(failure.code) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if matches!(failure.code.status(), 429 | 503) {
        let seconds = failure.retry_after_ms.unwrap_or(1000).div_ceil(1000).max(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.replayed {
        headers.extend([REPLAYED_HEADER]);
    }
    if failure.code == Code::PayloadTooLarge {
        // The rest of the body is not read, so that the connection ends: no request may follow on it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(id) = failure.extension.conversation_id
        && let Ok(location) = HeaderValue::from_str(&format!("/v1/conversations/{id}"))
    {
        headers.insert(LOCATION, location);
    }
}

/// Which of our media types the client takes (RFC 9110, section 12.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// `application/problem+json`, or anything.
    Problem,
    /// Of the two, only `application/json`.
    Json,
}

impl Accepts {
    pub(super) fn read<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut json = false;
        for range in media_ranges(values) {
            match range.as_str() {
                "*/*" | "application/*" | "application/problem+json" => return Self::Problem,
                "application/json" => json = true,
                _ => {}
            }
        }
        if json { Self::Json } else { Self::Problem }
    }
}

/// Whether a client that names what it accepts accepts JSON at all.
pub(super) fn accepts_json<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let mut values = values.into_iter().peekable();
    let takes_json =
        |range: String| matches!(range.as_str(), "*/*" | "application/*" | "application/json");
    values.peek().is_none() || media_ranges(values).any(takes_json)
}

/// The media ranges that are not excluded by `q=0`.
pub(super) fn media_ranges<'a>(
    values: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = String> {
    let texts = values.into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts
            .next()
            .filter(|name| !name.is_empty())?
            .to_ascii_lowercase();
        let excluded = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        (!excluded).then_some(name)
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body9457<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    #[serde(flatten)]
    extension: &'a Extension,
}

/// Writes the body of a [`Problem`]; any other answer stays as it is.
pub(super) fn render(mut response: Response, request_id: &str, accepts: Accepts) -> Response {
    let Some(Problem(failure)) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let body = Body9457 {
        r#type: format!("urn:confab:problem:{}", failure.code),
        title: failure.code.title(),
        status: failure.code.status(),
        detail: &failure.detail,
        code: failure.code,
        request_id,
        extension: &failure.extension,
    };
    let media_type = match accepts {
        Accepts::Problem => "application/problem+json",
        Accepts::Json => "application/json",
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
    response
}

#[cfg(test)]
mod tests {
    use confab_protocol::error::FieldError;

    use super::*;

    async fn rendered(failure: Failure, accepts: Accepts) -> String {
        let response = render(Problem::from(failure).into_response(), "req-1", accepts);
        let head: Vec<_> = response
            .headers()
            .iter()
            .map(|(k, v)| format!("{k}: {}", v.to_str().unwrap()))
            .collect();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        format!(
            "{status}\n{}\n{}",
            head.join("\n"),
            String::from_utf8(body.to_vec()).unwrap()
        )
    }

    #[tokio::test]
    async fn problem_has_code_field_and_retry_after() {
        let bad = Failure::validation(vec![
            FieldError::new("/kind", "must be given"),
            FieldError::new("/x", "is not known"),
        ]);
        let id = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let exists = Failure::of(Code::DirectConversationExists).with(Extension {
            conversation_id: Some(id),
            ..Extension::default()
        });
        let mut all = Vec::new();
        for failure in [
            bad,
            exists,
            Failure::of(Code::InvalidToken),
            Failure::of(Code::Overloaded).retry_after(1500),
        ] {
            all.push(rendered(failure, Accepts::Problem).await);
        }
        all.push(rendered(Failure::of(Code::NotFound), Accepts::Json).await);
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn a_client_gets_the_type_that_it_accepts() {
        let read = |text: &'static str| Accepts::read([&HeaderValue::from_static(text)]);
        assert_eq!(read("application/json"), Accepts::Json);
        assert_eq!(read("application/json, */*;q=0.1"), Accepts::Problem);
        assert_eq!(Accepts::read([]), Accepts::Problem);
        assert!(!accepts_json([&HeaderValue::from_static("text/html")]));
        assert!(!accepts_json([&HeaderValue::from_static(
            "application/json;q=0"
        )]));
        assert!(accepts_json([&HeaderValue::from_static(
            "text/html, application/json"
        )]));
    }
}
