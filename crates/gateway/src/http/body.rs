//! JSON bodies: bounded before they are read whole, in size and in time.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use confab_protocol::error::{Code, Failure};
use confab_protocol::limits;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::App;
use super::problem::Problem;

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
    let too_large = || {
        Failure::new(
            Code::PayloadTooLarge,
            format!("the body must be at most {} bytes", limits::FRAME),
        )
    };
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits::FRAME as u64) {
        return Err(too_large().into());
    }
    let read = Limited::new(request.into_body(), limits::FRAME).collect();
    match tokio::time::timeout(app.body_timeout, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large().into()),
        Ok(Err(_broken)) => Err(Failure::field("", "did not come whole").into()),
        Err(_late) => Err(Failure::field("", "came too slowly").into()),
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
