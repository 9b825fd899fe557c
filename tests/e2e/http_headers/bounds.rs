//! Invalid and oversized requests get a problem with the request's id, in an accepted media type.

use confab_client::Response;
use serde_json::Value;

use super::{CONVERSATIONS_PATH, ask, ask_as, setup};
use crate::support::{Cluster, Raw};

fn assert_problem(answer: &Response, status: u16, code: &str) -> Value {
    let problem: Value = answer.json().unwrap();
    assert_eq!((answer.status, &problem["code"]), (status, &code.into()));
    assert_eq!(problem["status"], status);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(
        problem["requestId"].as_str(),
        answer.header("x-request-id"),
        "{code}"
    );
    problem
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable_or_oversized_request_is_problem() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "")).await;
    let alice = cluster.user("alice");
    let long = "x".repeat(40_000);
    let cases = [
        (ask(&alice, "GET", "/nowhere", &[]).await, 404, "NOT_FOUND"),
        (
            ask(&alice, "PUT", CONVERSATIONS_PATH, &[]).await,
            405,
            "METHOD_NOT_ALLOWED",
        ),
        (
            ask_as(
                &alice,
                "GET",
                CONVERSATIONS_PATH,
                &[("accept", "text/html")],
            )
            .await,
            406,
            "NOT_ACCEPTABLE",
        ),
        (
            ask_as(
                &alice,
                "POST",
                CONVERSATIONS_PATH,
                &[("content-type", "text/plain")],
            )
            .await,
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            ask(
                &alice,
                "GET",
                &format!("{CONVERSATIONS_PATH}?x={long}"),
                &[],
            )
            .await,
            414,
            "URI_TOO_LONG",
        ),
        (
            ask(&alice, "GET", CONVERSATIONS_PATH, &[("x-long", &long)]).await,
            431,
            "HEADERS_TOO_LARGE",
        ),
        (
            ask(&alice, "GET", CONVERSATIONS_PATH, &[("x-many", "1"); 80]).await,
            431,
            "HEADERS_TOO_LARGE",
        ),
        (
            ask(&alice, "GET", "/health", &[("x-many", "1"); 80]).await,
            431,
            "HEADERS_TOO_LARGE",
        ),
    ];
    for (answer, status, code) in &cases {
        assert_problem(answer, *status, code);
    }
    let mut allowed: Vec<_> = super::listed(&cases[1].0, "allow");
    allowed.sort_unstable();
    assert_eq!(allowed, ["get", "head", "post"]);
    let only = [("accept", "application/json"), ("x-request-id", "mine")];
    let json = ask(&alice, "GET", "/nowhere", &only).await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.json::<Value>().unwrap()["requestId"], "mine");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_above_route_limit_is_refused_early() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "")).await;
    let port = cluster.gateways[0].port();
    let bearer = format!("Authorization: Bearer {}", cluster.user("alice").token);
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let routes = [
        ("/v1/messages".to_owned(), 512 * 1024),
        ("/v1/conversations".to_owned(), 640 * 1024),
        (format!("/v1/conversations/{id}/participants"), 640 * 1024),
    ];
    for (path, limit) in &routes {
        let head = |more: &str| {
            [
                bearer.clone(),
                "Content-Type: application/json".to_owned(),
                more.to_owned(),
            ]
        };
        let announced = format!("Content-Length: {}", limit + 1);
        // Not a byte of it follows; one that waits for leave to send is told as much at once.
        for more in [
            announced.clone(),
            format!("{announced}\r\nExpect: 100-continue"),
        ] {
            let mut raw = Raw::connect(port).await;
            let (status, body) = raw.request("POST", path, &head(&more), "").await;
            assert_eq!(status, 413, "{path}: {body}");
            assert!(body.contains("PAYLOAD_TOO_LARGE"), "{body}");
        }
        let chunk = format!("{:x}\r\n{}\r\n", limit + 1, " ".repeat(limit + 1));
        let mut raw = Raw::connect(port).await;
        let chunked = "Transfer-Encoding: chunked";
        let (status, body) = raw.request("POST", path, &head(chunked), &chunk).await;
        assert_eq!(status, 413, "{path}: {body}");
        // What fits is read, and found to be nothing.
        let fits = format!("Content-Length: {limit}");
        let spaces = " ".repeat(*limit);
        let mut raw = Raw::connect(port).await;
        let (status, body) = raw.request("POST", path, &head(&fits), &spaces).await;
        assert_eq!(status, 400, "{path}: {body}");
    }
    let mut waits = Raw::connect(port).await;
    let more = "Content-Length: 2\r\nExpect: 100-continue".to_owned();
    let head = [bearer, "Content-Type: application/json".to_owned(), more];
    let leave = waits.request("POST", "/v1/messages", &head, "").await;
    assert_eq!(leave, (100, String::new()));
    waits.write(b"{}").await.unwrap();
    let (status, _) = waits.answer().await.unwrap();
    assert_eq!(status, 400);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_get_sane_answers() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "")).await;
    let port = cluster.gateways[0].port();
    let bearer = format!("Authorization: Bearer {}", cluster.user("alice").token);
    for (line, status) in [
        ("GET /v1/conversations/%ff HTTP/1.1", 404),
        ("GET /v1/conversations/%zz HTTP/1.1", 404),
        ("GET /v1/conversations/% HTTP/1.1", 404),
        ("GET /v1/conversations/..%2f..%2fhealth HTTP/1.1", 404),
        ("GET /v1/../health HTTP/1.1", 404),
        ("GET //health HTTP/1.1", 404),
        ("GET http://elsewhere.example/health HTTP/1.1", 200),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT elsewhere.example:443 HTTP/1.1", 404),
        ("TRACE /v1/conversations HTTP/1.1", 405),
        ("BREW /v1/conversations HTTP/1.1", 405),
        ("get /v1/conversations HTTP/1.1", 405),
        ("HEAD /health HTTP/1.1", 200),
        ("GET /health HTTP/1.0", 200),
    ] {
        let mut raw = Raw::connect(port).await;
        let request = format!("{line}\r\nHost: confab\r\n{bearer}\r\nConnection: close\r\n\r\n");
        raw.write(request.as_bytes()).await.unwrap();
        if line.starts_with("HEAD") {
            assert_eq!(raw.status().await, Some(status), "{line}");
            continue;
        }
        let (got, body) = raw.answer().await.unwrap();
        assert_eq!(got, status, "{line}: {body}");
        assert!(
            status == 200 || body.contains("\"code\":"),
            "{line}: {body}"
        );
    }
    for (head, status) in [
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        // What is no HTTP is answered by hyper, without a body.
        ("GE(T /health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
        (
            "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            400,
        ),
        (
            "POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            400,
        ),
    ] {
        let mut raw = Raw::connect(port).await;
        raw.write(head.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(status), "{head}");
    }
    // Past 64 KiB of head or 100 headers hyper gives up itself.
    for more in [
        format!("X: {}\r\n", "x".repeat(70_000)),
        "X: 1\r\n".repeat(120),
    ] {
        let mut raw = Raw::connect(port).await;
        let head = format!("GET /health HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        raw.write(head.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(431));
    }
    cluster.end().await;
}
