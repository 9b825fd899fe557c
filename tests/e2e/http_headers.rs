//! Rules of every route: CORS, caching and security headers, compression and request limits.

use confab_client::Response;
use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User, text};

mod bounds;

const APP_ORIGIN: &str = "https://app.example";
const CONVERSATIONS_PATH: &str = "/v1/conversations";

fn setup(name: &'static str, value: &str) -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![(name, Some(value.to_owned()))],
        ..Setup::default()
    }
}

/// A call without a token.
async fn ask(user: &User, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    user.http(0)
        .raw(method, path, headers, Vec::new())
        .await
        .unwrap()
}

/// A call as the user.
async fn ask_as(user: &User, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let bearer = format!("Bearer {}", user.token);
    let headers = [headers, &[("authorization", bearer.as_str())]].concat();
    ask(user, method, path, &headers).await
}

fn listed(response: &Response, header: &str) -> Vec<String> {
    let values = response.headers.get_all(header).iter();
    let text: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
    text.join(",")
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

fn allowed_origin(response: &Response) -> Option<&str> {
    response.header("access-control-allow-origin")
}

/// A refused origin is told which setting would allow it.
fn assert_names_setting(refused: &Response, origin: &str) {
    let problem: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(problem["code"], "ORIGIN_FORBIDDEN");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(origin), "{detail}");
    assert!(detail.contains("CONFAB_CORS_ORIGINS"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_origins_may_call_and_read_headers() {
    let list = format!("{APP_ORIGIN},http://localhost:3000");
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", &list)).await;
    let alice = cluster.user("alice");
    let problem = "/v1/nowhere";
    for (origin, allowed) in [
        (APP_ORIGIN, true),
        ("http://localhost:3000", true),
        ("https://evil.example", false),
        ("null", false),
        ("https://app.example.evil.example", false),
    ] {
        let own = [("origin", origin)];
        let answers = [
            (ask_as(&alice, "GET", CONVERSATIONS_PATH, &own).await, 200),
            (ask(&alice, "GET", CONVERSATIONS_PATH, &own).await, 401),
            (ask(&alice, "GET", problem, &own).await, 404),
            (ask(&alice, "PUT", CONVERSATIONS_PATH, &own).await, 405),
        ];
        for (answer, status) in &answers {
            assert_eq!(answer.status, *status);
            assert_eq!(allowed_origin(answer), allowed.then_some(origin));
            assert!(listed(answer, "vary").contains(&"origin".to_owned()));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            let exposed = listed(answer, "access-control-expose-headers");
            for header in [
                "etag",
                "location",
                "retry-after",
                "ratelimit",
                "ratelimit-policy",
                "x-request-id",
                "idempotent-replayed",
                "www-authenticate",
                "allow",
            ] {
                assert!(exposed.contains(&header.to_owned()), "{header}");
            }
        }
    }
    let without = ask_as(&alice, "GET", CONVERSATIONS_PATH, &[]).await;
    assert_eq!((without.status, allowed_origin(&without)), (200, None));
    assert!(listed(&without, "vary").contains(&"origin".to_owned()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_preflights_of_known_routes_are_answered() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", APP_ORIGIN)).await;
    let alice = cluster.user("alice");
    let conversation = "/v1/conversations/01890a5d-ac96-774b-bcce-b302099a8057";
    let asks = [
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,if-match"),
    ];
    let from = |origin| [&[("origin", origin)][..], &asks].concat();
    let answer = ask(&alice, "OPTIONS", conversation, &from(APP_ORIGIN)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(allowed_origin(&answer), Some(APP_ORIGIN));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("access-control-max-age"), Some("7200"));
    let methods = listed(&answer, "access-control-allow-methods");
    assert_eq!(methods, ["get", "head", "post", "patch", "delete"]);
    let headers = listed(&answer, "access-control-allow-headers");
    for header in [
        "accept",
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "x-request-id",
        "traceparent",
    ] {
        assert!(headers.contains(&header.to_owned()), "{header}");
    }
    let other = ask(
        &alice,
        "OPTIONS",
        conversation,
        &from("https://evil.example"),
    )
    .await;
    assert_eq!((other.status, allowed_origin(&other)), (403, None));
    assert_names_setting(&other, "https://evil.example");
    let unknown = ask(&alice, "OPTIONS", "/v1/nowhere", &from(APP_ORIGIN)).await;
    assert_eq!((unknown.status, allowed_origin(&unknown)), (404, None));
    let plain = ask(
        &alice,
        "OPTIONS",
        CONVERSATIONS_PATH,
        &[("origin", APP_ORIGIN)],
    )
    .await;
    assert_eq!(plain.status, 405);
    assert!(listed(&plain, "allow").contains(&"post".to_owned()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_star_any_page_may_call() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "*")).await;
    let alice = cluster.user("alice");
    for origin in [APP_ORIGIN, "null"] {
        let answer = ask_as(&alice, "GET", CONVERSATIONS_PATH, &[("origin", origin)]).await;
        assert_eq!((answer.status, allowed_origin(&answer)), (200, Some("*")));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_security_and_cache_headers() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "")).await;
    let alice = cluster.user("alice");
    let page = [("origin", APP_ORIGIN)];
    let preflight = [
        ("origin", APP_ORIGIN),
        ("access-control-request-method", "POST"),
    ];
    let answers = [
        (ask_as(&alice, "GET", CONVERSATIONS_PATH, &page).await, 200),
        (ask(&alice, "GET", CONVERSATIONS_PATH, &page).await, 401),
        (ask(&alice, "GET", "/v1/nowhere", &page).await, 404),
        (ask(&alice, "DELETE", "/v1/messages", &page).await, 405),
        (
            ask(&alice, "OPTIONS", CONVERSATIONS_PATH, &preflight).await,
            403,
        ),
        (ask(&alice, "GET", "/v1/ws", &page).await, 400),
        (ask(&alice, "GET", "/health", &page).await, 200),
        (ask(&alice, "GET", "/metrics", &page).await, 200),
    ];
    for (answer, status) in &answers {
        assert_eq!(answer.status, *status);
        assert_secure(answer);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        for name in answer.headers.keys() {
            let name = name.as_str();
            assert!(!name.starts_with("access-control"), "{name}");
            assert!(!name.starts_with("ratelimit"), "{name}: limits are off");
        }
    }
    cluster.end().await;
}

fn assert_secure(answer: &Response) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_large_lists_are_compressed_on_request() {
    let cluster = Cluster::start(setup("CONFAB_CORS_ORIGINS", "")).await;
    let alice = cluster.user("alice");
    let gzip = [("accept-encoding", "br, gzip")];
    let metadata = json!({"custom": {"text": "x".repeat(12_000)}});
    let group = json!({"type": "group", "participants": ["alice"], "metadata": metadata});
    let bearer = format!("Bearer {}", alice.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = group.to_string();
    let created = alice
        .http(0)
        .raw("POST", CONVERSATIONS_PATH, &headers, body)
        .await;
    let created: Value = created.unwrap().json().unwrap();
    let id = created["conversation"]["id"].as_str().unwrap().to_owned();
    let history = format!("{CONVERSATIONS_PATH}/{id}/messages");
    let small = ask_as(&alice, "GET", &history, &gzip).await;
    assert_eq!(small.header("content-encoding"), None);

    for _ in 0..20 {
        let message = confab_client::NewMessage {
            conversation_id: id.parse().unwrap(),
            client_id: None,
            body: text(&"words ".repeat(100)),
        };
        alice.http(0).send_message(&message).await.unwrap();
    }
    let plain = ask_as(&alice, "GET", &history, &[]).await;
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let packed = ask_as(&alice, "GET", &history, &gzip).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("vary"), Some("accept-encoding"));
    assert_secure(&packed);
    assert!(packed.body.len() * 4 < plain.body.len());
    // RFC 1952: the last four bytes are the length of what was packed.
    let (_, length) = packed.body.split_last_chunk::<4>().unwrap();
    assert_eq!(u32::from_le_bytes(*length) as usize, plain.body.len());
    let refused = [("accept-encoding", "br, identity;q=0")];
    let refused = ask_as(&alice, "GET", &history, &refused).await;
    assert_eq!((refused.status, &refused.body), (200, &plain.body));

    let path = format!("{CONVERSATIONS_PATH}/{id}");
    let tagged = ask_as(&alice, "GET", &path, &gzip).await;
    assert!(tagged.body.len() > 8 * 1024);
    assert_eq!(tagged.header("content-encoding"), None);
    assert_eq!(tagged.header("cache-control"), Some("private, no-cache"));
    let etag = tagged.header("etag").unwrap();
    let same = ask_as(&alice, "GET", &path, &[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.header("etag")), (304, Some(etag)));
    assert_eq!(same.header("cache-control"), Some("private, no-cache"));
    cluster.end().await;
}

#[test]
fn invalid_origin_in_allowlist_fails_start() {
    let mut gateway = std::process::Command::new(env!("CARGO_BIN_EXE_confab"));
    gateway
        .args(["gateway", "--listen", "127.0.0.1:0"])
        .env(
            "CONFAB_JWT_PUBLIC_KEY",
            crate::support::Key::es256("a").public_pem(),
        )
        .env("CONFAB_JWT_ISSUER", "i")
        .env("CONFAB_JWT_AUDIENCE", "a")
        .env(
            "CONFAB_CORS_ORIGINS",
            "https://app.example,https://app.example/page",
        );
    let ended = gateway.output().unwrap();
    assert!(!ended.status.success());
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(log.contains("https://app.example/page"), "{log}");
}
