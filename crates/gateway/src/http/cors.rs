//! Which pages of other origins may call (the Fetch standard's CORS): those on the allowlist, without credentials.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::local_pages::{LOCALHOST, admits};

/// How long a browser may remember a preflight's answer: the most that any takes.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);
/// The methods of the API.
const METHODS: [Method; 5] = [
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

/// The rules for these origins; none without any: then nothing is said of CORS at all.
pub(crate) fn rules(origins: &[String]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        some if some.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        some => {
            let entries = some.to_vec();
            AllowOrigin::predicate(move |origin, _| {
                let origin = origin.to_str();
                origin.is_ok_and(|origin| entries.iter().any(|entry| admits(entry, origin)))
            })
        }
    };
    let rules = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(METHODS)
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(ANSWER_HEADERS)
        .max_age(REMEMBERED);
    Some(rules)
}

/// Applies the rules: preflights of known routes are answered here, every other answer gets its headers.
pub(super) async fn apply(
    State(rules): State<CorsLayer>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() == Method::OPTIONS && !is_preflight(&request) {
        return next.run(request).await;
    }
    match rules.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn is_preflight(request: &Request) -> bool {
    request.headers().contains_key(ORIGIN)
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && request.extensions().get::<MatchedPath>().is_some()
}

/// Reads an entry of the allowlist, `*`, `localhost` or an origin (RFC 6454, section 6.2), and gives it as browsers write it.
pub(crate) fn origin(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" || text == LOCALHOST {
        return Some(text);
    }
    let (scheme, authority) = text.split_once("://")?;
    let begins = scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_default = matches!(
        (scheme, port),
        ("https", Some("443")) | ("http", Some("80"))
    );
    let is_port = |port: &str| !port.starts_with('0') && port.parse::<u16>().is_ok();
    let valid = begins
        && scheme.bytes().all(is_scheme)
        && is_host(host)
        && port.is_none_or(is_port)
        && !is_default;
    valid.then_some(text)
}

fn is_host(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    v6.map_or_else(
        || {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(is_name)
        },
        |v6| v6.parse::<std::net::Ipv6Addr>().is_ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for good in [
            "*",
            "localhost",
            "https://app.example",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "https://[2001:db8::1]:8443",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(origin(good).as_deref(), Some(good));
        }
        assert_eq!(
            origin(" HTTPS://App.Example ").as_deref(),
            Some("https://app.example")
        );
        for bad in [
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example:443",
            "https://app.example:0",
            "https://app.example:65536",
            "https://app.example:",
            "https://ann@app.example",
            "https://*.example",
            "https://[::g]",
            "1http://app.example",
            "https://äpp.example",
            "https://a b",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_origins_there_are_no_rules() {
        assert!(rules(&[]).is_none());
        assert!(rules(&["https://app.example".to_owned(), "*".to_owned()]).is_some());
    }
}
