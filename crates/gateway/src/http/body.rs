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
        if !is_json(request.headers()) {
            return Err(Failure::new(
                Code::UnsupportedMediaType,
                "the body must be application/json",
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
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large().into()),
            Ok(Err(_broken)) => Err(Failure::field("", "did not come whole").into()),
            Err(_late) => Err(Failure::field("", "came too slowly").into()),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}
