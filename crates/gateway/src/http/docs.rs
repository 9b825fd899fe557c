//! The descriptions, and a page to browse them: everything comes from this binary, nothing from the internet.

use std::sync::{Arc, LazyLock, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use confab_protocol::error::{Code, Failure};
use serde_json::Value;
use utoipa_swagger_ui::Config;

use super::problem::Problem;
use crate::api_docs::asyncapi;
use crate::public_url::PublicUrl;

mod websocket;

/// The page loads scripts, styles and descriptions from its own origin only. What the browser makes of styles set by
/// script is not covered by `style-src`; Swagger UI's own pictures are data in its style sheet.
const CONTENT_SECURITY_POLICY_VALUE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const PAGE_HTML: &str = include_str!("docs/index.html");
const START_SCRIPT: &str = include_str!("docs/start.js");
const PAGE_CSS: &str = include_str!("docs/page.css");
/// What the page needs of Swagger UI's files.
const SWAGGER_ASSETS: [&str; 4] = [
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
];

static WEBSOCKET: LazyLock<Bytes> =
    LazyLock::new(|| websocket::page(&asyncapi::document(None)).into());
const HTML_TYPE: &str = "text/html; charset=utf-8";

/// The routes; the descriptions name `public_url` as the server, where there is one.
pub(super) fn router<S: Clone + Send + Sync + 'static>(
    public_url: Option<&PublicUrl>,
) -> Router<S> {
    let described = |document: fn(Option<&PublicUrl>) -> Value| {
        let (public_url, made) = (public_url.cloned(), Arc::new(OnceLock::new()));
        // Made when it is first asked for: few ask, and a start would take longer.
        let document = move || Bytes::from(document(public_url.as_ref()).to_string());
        get(async move || json(made.get_or_init(document)))
    };
    Router::new()
        .route("/openapi.json", described(super::openapi))
        .route("/asyncapi.json", described(asyncapi::document))
        .route("/docs", get(async || page(HTML_TYPE, PAGE_HTML)))
        .route("/docs/", get(async || Redirect::permanent("../docs")))
        .route(
            "/docs/websocket",
            get(async || page(HTML_TYPE, WEBSOCKET.clone())),
        )
        .route("/docs/{file}", get(asset))
}

fn json(document: &Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], document.clone()).into_response()
}

fn page(media_type: &'static str, text: impl Into<Body>) -> Response {
    (
        [
            (CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_VALUE),
        ],
        text.into(),
    )
        .into_response()
}

async fn asset(path: Result<Path<String>, PathRejection>) -> Response {
    let file = path.map_or_else(|_no_text| String::new(), |Path(file)| file);
    match file.as_str() {
        "start.js" => return page("text/javascript; charset=utf-8", START_SCRIPT),
        "page.css" => return page("text/css; charset=utf-8", PAGE_CSS),
        _ => {}
    }
    let known = SWAGGER_ASSETS.contains(&file.as_str());
    let found = known.then(|| utoipa_swagger_ui::serve(&file, Arc::new(Config::default())));
    let Some(Ok(Some(found))) = found else {
        return Problem::from(Failure::of(Code::NotFound)).into_response();
    };
    let head = [
        (CONTENT_TYPE, found.content_type),
        (CACHE_CONTROL, "public, max-age=86400".to_owned()),
    ];
    (StatusCode::OK, head, found.bytes.into_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn get_page(path: &str) -> (Response, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router::<()>(None).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (Response::from_parts(parts, Body::empty()), text)
    }

    #[tokio::test]
    async fn page_loads_nothing_from_elsewhere() {
        let (response, page) = get_page("/docs").await;
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let loaded = page
            .split(['"', '\''])
            .filter(|text| text.starts_with("docs/"));
        let loaded: Vec<_> = loaded.collect();
        // The script that starts it, and the page of the WebSocket.
        assert_eq!(loaded.len(), SWAGGER_ASSETS.len() + 2);
        for path in loaded {
            let (response, text) = get_page(&format!("/{path}")).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(!text.is_empty(), "{path}");
        }
        for text in [PAGE_HTML, START_SCRIPT] {
            assert!(!text.contains("//cdn") && !text.contains("http:") && !text.contains("https:"));
        }
        for other in ["/docs/index.html", "/docs/..%2Fsecret"] {
            assert_eq!(get_page(other).await.0.status(), StatusCode::NOT_FOUND);
        }
    }

    #[tokio::test]
    async fn websocket_page_loads_from_here_and_runs_nothing() {
        let (response, page) = get_page("/docs/websocket").await;
        assert_eq!(response.headers()[CONTENT_TYPE], HTML_TYPE);
        assert_eq!(
            response.headers()[CONTENT_SECURITY_POLICY],
            CONTENT_SECURITY_POLICY_VALUE
        );
        assert!(!page.contains("<script") && !page.contains(" style="));
        let (head, _) = page.split_once("</head>").unwrap();
        let loaded = head.split("href=\"").skip(1);
        for file in loaded.map(|text| text.split('"').next().unwrap()) {
            let (response, _) = get_page(&format!("/docs/{file}")).await;
            assert_eq!(response.status(), StatusCode::OK, "{file}");
        }
    }

    #[tokio::test]
    async fn both_descriptions_are_served() {
        for (path, field) in [("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")] {
            let (response, text) = get_page(path).await;
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let document: Value = serde_json::from_str(&text).unwrap();
            assert!(document[field].is_string(), "{path}");
            assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_a_problem_however_it_is_called() {
        for path in ["/docs/other.js", "/docs/%ff", "/docs/%2e%2e%2fx"] {
            let (response, _) = get_page(path).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert!(response.extensions().get::<Problem>().is_some(), "{path}");
        }
    }
}
