//! What every request is held to, and every answer carries, whatever its route.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use confab_protocol::error::{Code, Failure};

use super::App;
use super::problem::Problem;
use crate::http::server::Reserved;
use crate::limits::{RequestShare, RequestUsage};

/// Bytes of a request's target.
const MAX_URI_BYTES: usize = 8 * 1024;
/// Bytes of a request's headers. hyper itself gives up at 64 KiB of head or 100 headers, and answers without a body.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Headers of a request.
const HEADER_COUNT: usize = 64;
/// What a request may take beyond its body's time and twice the budget of what workers are asked: nothing of ours waits
/// that long, so that who runs into it has met a fault.
const REQUEST_MARGIN: Duration = Duration::from_secs(5);
/// What orchestrators ask is never limited: they would take a busy gateway for a dead one.
const UNLIMITED_ROUTES: [&str; 4] = ["/health", "/ready", "/metrics", "/version"];

/// How long a request may wait for a gateway that begins: a proxy that does not ask /ready sends some as soon as the port is listened on.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// After how long a connection is worth another try when all are taken, in milliseconds.
const FULL_RETRY_DELAY_MS: u64 = 1000;

/// The longest that a request may take in all.
pub(crate) fn longest(body: Duration, budget: Duration) -> Duration {
    body + 2 * budget + REQUEST_MARGIN
}

/// Refuses a head that is too large, then what its address may not ask; else goes on, in bounded time, and not before the gateway was ready
/// once or should have been.
pub(super) async fn hold(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(failure) = check_head(&request) {
        return Problem::from(failure).into_response();
    }
    let route = request.extensions().get::<MatchedPath>();
    let is_unlimited = route.is_some_and(|route| UNLIMITED_ROUTES.contains(&route.as_str()));
    if !is_unlimited && request.extensions().get::<Reserved>().is_some() {
        let full = Failure::new(
            Code::Overloaded,
            "the gateway has as many connections as it may have",
        );
        return Problem::from(full.retry_after(FULL_RETRY_DELAY_MS)).into_response();
    }
    if !is_unlimited && !app.was_ready.initialized() {
        let ready = tokio::time::timeout(START_TIMEOUT, app.was_ready.wait());
        ready.await.unwrap_or(&());
    }
    let share = RequestShare::default();
    request.extensions_mut().insert(share.clone());
    let mut response = limited(&app, is_unlimited, request, next).await;
    // Until the answer's body is gone: what is slowly taken counts.
    response.extensions_mut().insert(share);
    response
}

/// Refuses what the request's address may not ask; else goes on.
async fn limited(app: &App, is_unlimited: bool, mut request: Request, next: Next) -> Response {
    if !app.limits.are_on() || is_unlimited {
        return in_time(app.longest, request, next).await;
    }
    let tally = RequestUsage::default();
    request.extensions_mut().insert(tally.clone());
    let charged = app
        .limits
        .charge_address(request.extensions(), request.headers());
    let mut response = match charged {
        Ok(()) => in_time(app.longest, request, next).await,
        Err(failure) => Problem::from(failure).into_response(),
    };
    app.limits.tell(&tally, response.headers_mut());
    response
}

async fn in_time(longest: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_late) => Problem::from(Failure::of(Code::Timeout)).into_response(),
    }
}

fn check_head(request: &Request) -> Result<(), Failure> {
    let uri = request.uri();
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > MAX_URI_BYTES {
        return Err(Failure::of(Code::UriTooLong));
    }
    let headers = request.headers();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > HEADER_COUNT || bytes > MAX_HEADER_BYTES {
        return Err(Failure::of(Code::HeadersTooLarge));
    }
    let hosts = headers.get_all(HOST).iter().count();
    // RFC 9112, section 3.2: one, whatever it says; before HTTP/1.1 there may be none.
    if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
        return Err(Failure::field("Host", "must be there once"));
    }
    Ok(())
}

/// Tells browsers and caches to make nothing of an answer but what it is. What a route says itself stands.
pub(super) fn secure(response: &mut Response) {
    const NO_SOURCES: HeaderValue =
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    // A representation that has a validator is kept and asked for again with it (`If-None-Match`); no other is kept.
    let is_read = matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED);
    let headers = response.headers_mut();
    let caching = if is_read && headers.contains_key(ETAG) {
        "private, no-cache"
    } else {
        "no-store"
    };
    let fixed: [(HeaderName, HeaderValue); 5] = [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (CONTENT_SECURITY_POLICY, NO_SOURCES),
        (CACHE_CONTROL, HeaderValue::from_static(caching)),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    fn refused(uri: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let mut request = axum::http::Request::get(uri).header(HOST, "confab");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        check_head(&request).err().map(|failure| failure.code)
    }

    #[test]
    fn heads_are_bounded() {
        let long = |bytes| "x".repeat(bytes);
        assert_eq!(refused("/v1/conversations", &[]), None);
        assert_eq!(refused(&format!("/{}", long(MAX_URI_BYTES - 1)), &[]), None);
        assert_eq!(
            refused(&format!("/?{}", long(MAX_URI_BYTES - 1)), &[]),
            Some(Code::UriTooLong)
        );
        assert_eq!(refused("/", &[("x", &long(MAX_HEADER_BYTES - 20))]), None);
        assert_eq!(
            refused("/", &[("x", &long(MAX_HEADER_BYTES))]),
            Some(Code::HeadersTooLarge)
        );
        assert_eq!(refused("/", &[("x", ""); HEADER_COUNT - 1]), None);
        assert_eq!(
            refused("/", &[("x", ""); HEADER_COUNT]),
            Some(Code::HeadersTooLarge)
        );
        assert_eq!(refused("/", &[("host", "other")]), Some(Code::Validation));
    }

    #[test]
    fn what_a_route_says_itself_stands() {
        let policy = HeaderValue::from_static("default-src 'self'");
        let mut response = ([(CONTENT_SECURITY_POLICY, policy)], "").into_response();
        secure(&mut response);
        let headers = response.headers();
        assert_eq!(headers[CONTENT_SECURITY_POLICY], "default-src 'self'");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn answer_with_validator_may_be_cached() {
        let etag = || [(ETAG, HeaderValue::from_static("\"a\""))];
        let caching = |status: StatusCode| {
            let mut response = (status, etag()).into_response();
            secure(&mut response);
            response.headers()[CACHE_CONTROL].clone()
        };
        assert_eq!(caching(StatusCode::OK), "private, no-cache");
        assert_eq!(caching(StatusCode::NOT_MODIFIED), "private, no-cache");
        assert_eq!(caching(StatusCode::CREATED), "no-store");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_told_so() {
        let routes = Router::new().route("/", get(std::future::pending::<()>));
        let longest = longest(Duration::from_secs(30), Duration::from_secs(5));
        let bounded = routes.layer(from_fn(move |request: Request, next: Next| {
            in_time(longest, request, next)
        }));
        let began = tokio::time::Instant::now();
        let request = axum::http::Request::get("/").body(Body::empty()).unwrap();
        let response = bounded.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(began.elapsed().as_secs(), 45);
        assert!(response.extensions().get::<Problem>().is_some());
    }
}
