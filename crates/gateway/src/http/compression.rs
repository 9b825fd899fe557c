//! gzip for large lists, where the client takes it. Nothing else: a short answer gains nothing, and one with an `ETag` would
//! need another for each coding.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ACCEPT_ENCODING, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tower::{Layer as _, ServiceExt as _};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate as _, SizeAbove};

/// Bytes above which a list is compressed.
const MIN_COMPRESSED_BYTES: u64 = 8 * 1024;
/// The last segments of the routes that answer with a list.
const LIST_ROUTES: [&str; 4] = ["/conversations", "/participants", "/messages", "/events"];
/// The other name of a conversation's history.
const HISTORY_ROUTE: &str = "/v1/messages/conversation/";

/// Compresses the answer of a route that lists.
pub(super) async fn apply(mut request: Request, next: Next) -> Response {
    if !is_list(&request) {
        return next.run(request).await;
    }
    // The layer answers 406 to whoever takes neither gzip nor the plain body, which always goes here.
    let coding = HeaderValue::from_static(if takes_gzip(request.headers()) {
        "gzip"
    } else {
        "identity"
    });
    request.headers_mut().insert(ACCEPT_ENCODING, coding);
    let untagged = |_: _, _: _, headers: &HeaderMap, _: &_| !headers.contains_key(ETAG);
    let layer = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(MIN_COMPRESSED_BYTES).and(untagged));
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

fn is_list(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    request.method() == Method::GET
        && route.map(MatchedPath::as_str).is_some_and(|route| {
            LIST_ROUTES.iter().any(|list| route.ends_with(list)) || route.starts_with(HISTORY_ROUTE)
        })
}

/// Whether gzip is among the codings that the client takes, by its name or by `*` (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let mut any = false;
    for coding in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        let taken = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return taken,
            "*" => any = taken,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_by_name_or_with_all() {
        let takes = |text: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(
                ACCEPT_ENCODING,
                HeaderValue::from_static(text),
            )]))
        };
        assert!(!takes_gzip(&HeaderMap::new()));
        assert!(takes("gzip, deflate, br"));
        assert!(takes("br;q=1.0, GZIP;q=0.5"));
        assert!(takes("*"));
        assert!(!takes("gzip;q=0, *"));
        assert!(!takes("br, identity"));
        assert!(!takes(""));
    }
}
