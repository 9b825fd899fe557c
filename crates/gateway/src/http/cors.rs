//! Which pages of other origins may call (the Fetch standard's CORS): those on the allowlist, without credentials.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::problem::Problem;
use crate::origins::{self, Origins};

/// How long a browser may remember a preflight's answer: the most that any takes.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);
/// The methods of the API.
const API_METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];
/// The request headers that mean something here.
const REQUEST_HEADERS: [HeaderName; 9] = [
    ACCEPT,
    AUTHORIZATION,
    CONTENT_TYPE,
    IF_MATCH,
    IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// The headers of answers that a page can read only when told so.
const ANSWER_HEADERS: [HeaderName; 9] = [
    ALLOW,
    ETAG,
    LOCATION,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    HeaderName::from_static("idempotent-replayed"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("x-request-id"),
];

/// The rules for pages of other origins.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    origins: Origins,
    /// None where no origin is allowed: then answers say nothing of CORS at all.
    layer: Option<CorsLayer>,
}

impl Rules {
    pub(crate) fn new(origins: Origins) -> Self {
        let layer = (!origins.is_empty()).then(|| {
            CorsLayer::new()
                .allow_origin(allowed(&origins))
                .allow_methods(API_METHODS)
                .allow_headers(REQUEST_HEADERS)
                .expose_headers(ANSWER_HEADERS)
                .max_age(PREFLIGHT_MAX_AGE)
        });
        Self { origins, layer }
    }
}

fn allowed(origins: &Origins) -> AllowOrigin {
    if origins.has_all() {
        return AllowOrigin::any();
    }
    let origins = origins.clone();
    AllowOrigin::predicate(move |origin, _| {
        let origin = origin.to_str();
        origin.is_ok_and(|origin| origins.admits(origin))
    })
}

/// Applies the rules: preflights of known routes are answered here, every other answer gets its headers.
///
/// A preflight of an origin that may not call is refused with the reason: a browser takes any answer without `Access-Control-Allow-Origin`
/// for a refusal (Fetch, "CORS-preflight fetch" and "CORS check"), and shows its developer the status and the body.
pub(super) async fn apply(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    if let Some(origin) = preflight(&request) {
        if !rules.origins.admits(origin) {
            return Problem::from(origins::refused(origin)).into_response();
        }
    } else if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let Some(layer) = rules.layer else {
        return next.run(request).await;
    };
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The origin that asks by a preflight of a known route.
fn preflight(request: &Request) -> Option<&str> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && request.extensions().get::<MatchedPath>().is_some();
    let origin = headers.get(ORIGIN).filter(|_| is_preflight)?;
    // One that is not text is on no list.
    Some(origin.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_origins_there_are_no_rules() {
        let rules = |listed: &[&str]| {
            let listed: Vec<_> = listed.iter().map(|&one| one.to_owned()).collect();
            let rules = Rules::new(Origins::new(&listed, None).unwrap());
            rules.layer.is_some()
        };
        assert!(!rules(&[]));
        assert!(rules(&["https://app.example", "*"]));
    }
}
