//! Answers whose bodies are JSON text: what workers wrote is sent as it is, under its name.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_protocol::json::JsonText;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");
/// Says that a key the client gave was used before.
pub(super) const REPLAYED_HEADER: (HeaderName, HeaderValue) = (
    HeaderName::from_static("idempotent-replayed"),
    HeaderValue::from_static("true"),
);

/// An answer whose body is JSON text.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, JSON_TYPE)], Body::from(body)).into_response()
}

/// A resource under its name.
pub(super) fn named(status: StatusCode, name: &str, resource: &JsonText) -> Response {
    json(status, format!("{{\"{name}\":{}}}", resource.as_str()))
}

/// A message, with its version as its `ETag`: a strong one, since nothing of a message changes without it.
pub(super) fn message(status: StatusCode, message: &JsonText) -> Response {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let mut response = named(status, "message", message);
    // One that an older worker tells has none.
    let versioned: Option<Versioned> = serde_json::from_str(message.as_str()).ok();
    let etag = versioned
        .and_then(|Versioned { version }| HeaderValue::from_str(&format!("\"{version}\"")).ok());
    response.headers_mut().extend(etag.map(|etag| (ETAG, etag)));
    response
}

/// The same answer, which says of a repeat that the client's key was used before.
pub(super) fn replayed_if(is_repeat: bool, mut response: Response) -> Response {
    response
        .headers_mut()
        .extend(is_repeat.then_some(REPLAYED_HEADER));
    response
}

/// A list under its name, and what stands beside it: a member's name and JSON text.
pub(super) fn list(name: &str, items: &[JsonText], beside: (&str, &str)) -> Response {
    let size = items
        .iter()
        .map(|item| item.as_str().len() + 1)
        .sum::<usize>();
    let mut body = String::with_capacity(size + beside.1.len() + 64);
    body.push_str("{\"");
    body.push_str(name);
    body.push_str("\":[");
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(item.as_str());
    }
    body.push_str("],\"");
    body.push_str(beside.0);
    body.push_str("\":");
    body.push_str(beside.1);
    body.push('}');
    json(StatusCode::OK, body)
}

/// An answer with the `ETag` of its body.
pub(super) fn with_etag(status: StatusCode, body: JsonText) -> Response {
    let digest = Sha256::digest(body.as_str().as_bytes());
    let etag = format!(
        "\"{}\"",
        URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default())
    );
    let mut response = json(status, body.into_string());
    response
        .headers_mut()
        .extend(HeaderValue::from_str(&etag).ok().map(|etag| (ETAG, etag)));
    response
}

/// The answer to a client that says which representations it has: 304 where this is one of them.
pub(super) fn unless_unchanged(headers: &HeaderMap, response: Response) -> Response {
    let etag = response.headers().get(ETAG);
    if !is_unchanged(headers, etag) {
        return response;
    }
    let mut unchanged = StatusCode::NOT_MODIFIED.into_response();
    unchanged
        .headers_mut()
        .extend(etag.cloned().map(|etag| (ETAG, etag)));
    unchanged
}

/// Whether the client has this representation already (RFC 9110, section 13.1.2: compared weakly).
fn is_unchanged(headers: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    let Some(etag) = etag.and_then(|etag| etag.to_str().ok()) else {
        return false;
    };
    let values = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_representation_is_not_sent_again() {
        let answer = || with_etag(StatusCode::OK, JsonText::trusted("{\"a\":1}".into()));
        let etag = answer().headers()[ETAG].to_str().unwrap().to_owned();
        let status = |held: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, held.parse().unwrap());
            let response = unless_unchanged(&headers, answer());
            assert_eq!(response.headers()[ETAG], etag.as_str());
            response.status().as_u16()
        };
        for held in [etag.as_str(), "*", &format!("\"x\", W/{etag}")] {
            assert_eq!(status(held), 304, "{held}");
        }
        assert_eq!(status("\"x\""), 200);
        assert_eq!(unless_unchanged(&HeaderMap::new(), answer()).status(), 200);
    }

    #[tokio::test]
    async fn a_list_stands_under_its_name() {
        let items = ["1", "{\"b\":  2}"].map(|item| JsonText::trusted(item.into()));
        let response = list("things", &items, ("nextCursor", "null"));
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        assert_eq!(&body[..], br#"{"things":[1,{"b":  2}],"nextCursor":null}"#);
    }
}
