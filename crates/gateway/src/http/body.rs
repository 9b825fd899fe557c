//! JSON bodies: bounded before they are read whole, in size and in time.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use confab_protocol::error::{Code, Failure};
use confab_protocol::limits;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::Instant;

use super::App;
use super::problem::Problem;
use crate::limits::RequestShare;

/// The bytes of a JSON body, not yet looked at.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Bytes);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        read(request, app, &["application/json"]).await.map(Self)
    }
}

/// The bytes of a JSON merge patch (RFC 7396), not yet looked at.
#[derive(Debug)]
pub(super) struct PatchBody(pub(super) Bytes);

impl FromRequest<Arc<App>> for PatchBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let taken = ["application/json", "application/merge-patch+json"];
        read(request, app, &taken).await.map(Self)
    }
}

async fn read(request: Request, app: &App, media_types: &[&str]) -> Result<Bytes, Problem> {
    let given = media_type(request.headers());
    if !media_types
        .iter()
        .any(|taken| given.eq_ignore_ascii_case(taken))
    {
        return Err(Failure::new(
            Code::UnsupportedMediaType,
            format!("the body must be {}", media_types.join(" or ")),
        )
        .into());
    }
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let most = most(&route);
    let too_large = || {
        Failure::new(
            Code::PayloadTooLarge,
            format!("the body must be at most {most} bytes"),
        )
    };
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most as u64) {
        return Err(too_large().into());
    }
    let until = Instant::now() + app.body_timeout;
    let share = request.extensions().get::<RequestShare>().cloned();
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    let room = announced.unwrap_or(most);
    share
        .unwrap_or_default()
        .room(room, app.body_timeout)
        .await?;
    let read = Limited::new(request.into_body(), most).collect();
    match tokio::time::timeout_at(until, read).await {
        Ok(Ok(body)) => {
            let bytes = body.to_bytes();
            app.metrics.read(&route, bytes.len());
            Ok(bytes)
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large().into()),
        Ok(Err(_broken)) => Err(Failure::field("", "did not come whole").into()),
        Err(_late) => Err(Failure::field("", "came too slowly").into()),
    }
}

/// The most bytes that a route's body can need, with room for spaces and escapes.
fn most(route: &str) -> usize {
    match route {
        // A message, encrypted and in base64 at most.
        "/v1/messages" | "/v1/messages/{id}" => limits::MAX_FRAME_BYTES,
        // A thousand user ids of 128 characters each, of four bytes at most, and metadata.
        "/v1/conversations" | "/v1/conversations/{id}/participants" => 640 * 1024,
        // A conversation's metadata, each of its characters escaped.
        "/v1/conversations/{id}" => 128 * 1024,
        // A few ids; a hundred at `/v1/messages/read`.
        _ => 16 * 1024,
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
