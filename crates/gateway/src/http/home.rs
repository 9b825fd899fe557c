//! What a gateway's address leads to: its pages and descriptions, and in development a page to try it. Nothing comes from the internet.

use axum::Router;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::problem::media_ranges;

const HOME_HTML: &str = include_str!("home/home.html");
const TRY_HTML: &str = include_str!("home/try.html");
/// The link to the page to try it.
const LINK_TO_TRY: &str =
    r#"<li><a href="try">/try</a>: a page that opens a WebSocket, sends and hears.</li>"#;
const PACKAGE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Which pages there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// For whoever comes.
    Home,
    /// For development, a page to try it as well.
    HomeAndTry,
}

impl Pages {
    pub(crate) const fn with_try(has_try: bool) -> Self {
        if has_try {
            Self::HomeAndTry
        } else {
            Self::Home
        }
    }
}

/// The routes; `prefix` stands before the paths of the links, where a proxy takes it away.
pub(super) fn router<S: Clone + Send + Sync + 'static>(pages: Pages, prefix: &str) -> Router<S> {
    let link = match pages {
        Pages::Home => "",
        Pages::HomeAndTry => LINK_TO_TRY,
    };
    let html = HOME_HTML
        .replace("{version}", PACKAGE_VERSION)
        .replace("{try}", link);
    let links = Bytes::from(links(pages, prefix).to_string());
    let home = Page::of(html);
    let show = async move |headers: HeaderMap| {
        let mut response = if takes_html(&headers) {
            home.into_response()
        } else {
            ([(CONTENT_TYPE, "application/json")], links).into_response()
        };
        let vary = HeaderValue::from_static("accept");
        response.headers_mut().append(VARY, vary);
        response
    };
    let router = Router::new().route("/", get(show));
    match pages {
        Pages::Home => router,
        Pages::HomeAndTry => {
            let page = Page::of(TRY_HTML.to_owned());
            router.route("/try", get(async move || page.into_response()))
        }
    }
}

/// Browsers name HTML when they are led to a page; others that take anything get JSON.
fn takes_html(headers: &HeaderMap) -> bool {
    media_ranges(headers.get_all(ACCEPT)).any(|range| range == "text/html")
}

const PAGE_LINKS: [(&str, &str); 9] = [
    ("docs", "/docs"),
    ("websocketDocs", "/docs/websocket"),
    ("openapi", "/openapi.json"),
    ("asyncapi", "/asyncapi.json"),
    ("websocket", "/v1/ws"),
    ("health", "/health"),
    ("ready", "/ready"),
    ("metrics", "/metrics"),
    ("version", "/version"),
];

fn links(pages: Pages, prefix: &str) -> Value {
    let has_try = pages == Pages::HomeAndTry;
    let links = PAGE_LINKS
        .into_iter()
        .chain(has_try.then_some(("try", "/try")))
        .map(|(name, path)| (name.to_owned(), format!("{prefix}{path}").into()));
    let links: Map<String, Value> = links.collect();
    json!({ "service": "confab", "version": PACKAGE_VERSION, "links": links })
}

/// A page that runs its own script and style alone, and calls where it came from.
#[derive(Debug, Clone)]
struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    fn of(html: String) -> Self {
        const NO_SOURCES: HeaderValue = HeaderValue::from_static("default-src 'none'");
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            source(&html, "<script>", "</script>"),
            source(&html, "<style>", "</style>"),
        );
        Self {
            html: html.into(),
            policy: HeaderValue::from_str(&policy).unwrap_or(NO_SOURCES),
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let headers = [(CONTENT_TYPE, html), (CONTENT_SECURITY_POLICY, self.policy)];
        (headers, self.html).into_response()
    }
}

/// The source (Content Security Policy Level 3, section 2.3.1) of the one element between two tags: the hash of its text.
fn source(html: &str, start: &str, end: &str) -> String {
    let element = html
        .split_once(start)
        .and_then(|(_, rest)| rest.split_once(end));
    element.map_or_else(
        || "'none'".to_owned(),
        |(text, _)| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text))),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    const BROWSER_ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    async fn ask(pages: Pages, path: &str, accept: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(ACCEPT, accept);
        let request = request.body(Body::empty()).unwrap();
        let response = router::<()>(pages, "").oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1_000_000).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (parts.status, parts.headers, text)
    }

    #[tokio::test]
    async fn browser_is_led_to_all_there_is() {
        let (status, headers, page) = ask(Pages::Home, "/", BROWSER_ACCEPT).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[VARY], "accept");
        for link in [
            "docs",
            "docs/websocket",
            "openapi.json",
            "asyncapi.json",
            "health",
            "ready",
            "metrics",
            "version",
        ] {
            assert!(page.contains(&format!("href=\"{link}\"")), "{link}");
        }
        assert!(
            page.contains(PACKAGE_VERSION)
                && !page.contains("{version}")
                && !page.contains("{try}")
        );
        assert!(!page.contains("href=\"try\""));
        let (_, _, page) = ask(Pages::HomeAndTry, "/", BROWSER_ACCEPT).await;
        assert!(page.contains("href=\"try\""));
    }

    #[tokio::test]
    async fn others_get_the_links_as_json() {
        for accept in ["*/*", "application/json", "text/html;q=0, */*"] {
            let (_, headers, text) = ask(Pages::Home, "/", accept).await;
            assert_eq!(headers[CONTENT_TYPE], "application/json", "{accept}");
            let told: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(told["links"]["docs"], "/docs");
            assert_eq!(told["links"]["try"], Value::Null);
        }
        let (_, _, text) = ask(Pages::HomeAndTry, "/", "*/*").await;
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["links"]["try"], "/try");
    }

    #[test]
    fn links_begin_with_the_prefix() {
        let told = links(Pages::HomeAndTry, "/confab");
        for (name, path) in PAGE_LINKS.into_iter().chain([("try", "/try")]) {
            assert_eq!(told["links"][name], format!("/confab{path}"));
        }
    }

    #[tokio::test]
    async fn try_page_is_for_development_alone() {
        let (status, _, _) = ask(Pages::Home, "/try", BROWSER_ACCEPT).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let (status, _, page) = ask(Pages::HomeAndTry, "/try", BROWSER_ACCEPT).await;
        assert_eq!((status, page.as_str()), (StatusCode::OK, TRY_HTML));
    }

    #[tokio::test]
    async fn pages_run_their_own_script_and_style_alone() {
        for path in ["/", "/try"] {
            let (_, headers, page) = ask(Pages::HomeAndTry, path, BROWSER_ACCEPT).await;
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; "), "{policy}");
            assert!(!policy.contains("unsafe"), "{policy}");
            let scripted = path == "/try";
            assert_eq!(policy.contains("script-src 'sha256-"), scripted, "{policy}");
            assert!(policy.contains("style-src 'sha256-"), "{policy}");
            // One hash is told of each: there is one element of each, and nothing that the policy would refuse.
            assert_eq!(page.matches("<script").count(), usize::from(scripted));
            assert_eq!(page.matches("<style").count(), 1);
            for refused in [
                "http:",
                "https:",
                "src=",
                "<link",
                " style=",
                " onclick=",
                "innerHTML",
            ] {
                assert!(!page.contains(refused), "{path}: {refused}");
            }
        }
    }

    #[test]
    fn source_is_the_hash_of_the_text() {
        // The example of Content Security Policy Level 3, section 8.3.
        let html = "<script>alert('Hello, world.');</script>";
        assert_eq!(
            source(html, "<script>", "</script>"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
        assert_eq!(source(html, "<style>", "</style>"), "'none'");
    }
}
