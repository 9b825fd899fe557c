//! Bad tokens are refused with their codes over HTTP, in a WebSocket's header and in its hello.

use confab_client::{Http, Options, TokenIn, Ws, WsError};
use confab_protocol::error::Code;
use confab_protocol::frame::{Heard, ServerFrame};
use serde_json::{Value, json};

use crate::support::{Cluster, Raw, Setup, claims};

mod check;
mod forged;
mod keys;
mod live;
mod providers;
mod refusals;

fn small(gateway_env: Vec<(&'static str, Option<String>)>) -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        gateway_env,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_token_is_refused_with_code_everywhere() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let url = cluster.gateways[0].url();
    for (what, token, code) in &forged::cases(&cluster.key) {
        assert_refused(&url, what, token, *code).await;
    }
    let long = format!(
        "{}{}",
        cluster.key.token(&claims("eve")),
        "A".repeat(17_000)
    );
    assert_eq!(over_http(&url, &long).await, Some(Code::InvalidToken));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_tokens_are_accepted_everywhere() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let url = cluster.gateways[0].url();
    let late = now() - 10;
    let changes = [
        json!({}),
        json!({"exp": late}),
        json!({"nbf": now() + 10, "iat": now() + 10}),
        json!({"aud": ["other", "confab"]}),
        json!({"scope": "openid profile"}),
        json!({"scope": "confab:read confab:write"}),
        json!({"tenant": "acme"}),
    ];
    for change in changes {
        let token = cluster.key.token(&changed(&change));
        assert_accepted(&url, &token).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_duplicate_and_misplaced_tokens_are_told_apart() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let port = cluster.gateways[0].port();
    let token = cluster.key.token(&claims("alice"));
    let good = format!("Authorization: Bearer {token}");
    let lower = format!("authorization: bearer {token}");
    let headers: [(&[&str], &str); 8] = [
        (&[], "MISSING_TOKEN"),
        (&["Authorization: Basic YTpi"], "MISSING_TOKEN"),
        (&["Authorization: Bearer"], "MISSING_TOKEN"),
        (&["Authorization: Bearer "], "MISSING_TOKEN"),
        (&["x-user-id: alice", "x-device-id: d"], "MISSING_TOKEN"),
        (&[&good, &good], "INVALID_TOKEN"),
        (&[&good, "Authorization: Basic YTpi"], "INVALID_TOKEN"),
        (&[&lower, "x-user-id: bob"], ""),
    ];
    for (lines, code) in headers {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        assert_answered(port, &lines, code).await;
    }
    let in_url = format!("/v1/conversations?access_token={token}");
    let (_, body) = Raw::connect(port)
        .await
        .request("GET", &in_url, &[], "")
        .await;
    assert_eq!(code_of(&body), "MISSING_TOKEN");
    assert_no_token_in_url(port, &token).await;
    cluster.end().await;
}

/// Without a header a socket may still say its token in hello; every other bad header refuses the upgrade.
async fn assert_answered(port: u16, lines: &[String], code: &str) {
    let (status, body) = Raw::connect(port)
        .await
        .request("GET", "/v1/conversations", lines, "")
        .await;
    assert_eq!(
        (status, code_of(&body).as_str()),
        (if code.is_empty() { 200 } else { 401 }, code)
    );
    let has_header = lines
        .iter()
        .any(|line| line.to_lowercase().starts_with("authorization"));
    let (status, body) = Raw::connect(port)
        .await
        .upgrade("/v1/ws", "confab.v1.json", lines)
        .await;
    let refused = has_header && !code.is_empty();
    assert_eq!(status, if refused { 401 } else { 101 }, "{lines:?}");
    assert_eq!(code_of(&body), if refused { code } else { "" });
}

async fn assert_no_token_in_url(port: u16, token: &str) {
    let path = format!("/v1/ws?token={token}");
    let mut raw = Raw::connect(port).await;
    let (status, body) = raw.upgrade(&path, "confab.v1.json", &[]).await;
    assert_eq!((status, code_of(&body).as_str()), (400, "VALIDATION_ERROR"));
    assert!(!body.contains(token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_needs_token_and_session_expires_with_it() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let url = cluster.gateways[0].url();
    for none in [TokenIn::Nowhere, TokenIn::Hello(String::new())] {
        assert_eq!(
            opened(&url, none).await,
            Some((Code::MissingToken, Some(4401)))
        );
    }
    let token = cluster.key.token(&claims("alice"));
    let mut twice = options(TokenIn::Header(token.clone()));
    twice.hello.token = Some(token);
    let Err(WsError::Rejected { error, closed }) = Ws::connect(&url, twice).await else {
        panic!("a token in both places was taken");
    };
    assert_eq!((error.code, closed.code), (Code::Validation, Some(4400)));

    // Good for five seconds more, by the 30 s that clocks may differ.
    let brief = cluster.key.token(&changed(&json!({"exp": now() - 25})));
    let (_, mut ws) = Ws::connect(&url, options(TokenIn::Hello(brief)))
        .await
        .unwrap();
    let closed = loop {
        match ws.next().await {
            Ok(Heard::Frame(ServerFrame::TokenExpiring(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(closed) => break closed,
        }
    };
    assert_eq!(
        (closed.code, closed.reason.as_str()),
        (Some(4401), "TOKEN_EXPIRED")
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_allows_only_what_it_names() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let url = cluster.gateways[0].url();
    let scoped = |scope: &str| cluster.key.token(&changed(&json!({ "scope": scope })));
    let (reads, writes) = (scoped("openid confab:read"), scoped("confab:write"));
    let group = json!({"type": "group", "participants": ["bob"]}).to_string();

    assert_eq!(call(&url, "POST", &reads, &group).await, 403);
    assert_eq!(call(&url, "GET", &reads, "").await, 200);
    assert_eq!(call(&url, "POST", &writes, &group).await, 201);
    assert_eq!(call(&url, "GET", &writes, "").await, 403);
    assert_eq!(
        over_http(&url, &writes).await,
        Some(Code::InsufficientScope)
    );
    let in_header = opened(&url, TokenIn::Header(writes.clone())).await;
    assert_eq!(in_header, Some((Code::InsufficientScope, None)));
    let in_hello = opened(&url, TokenIn::Hello(writes)).await;
    assert_eq!(in_hello, Some((Code::InsufficientScope, Some(4403))));
    assert_only_listens(cluster.gateways[0].port(), &reads).await;
    cluster.end().await;
}

/// A reader's send is refused, and its connection lives.
async fn assert_only_listens(port: u16, token: &str) {
    let header = [format!("Authorization: Bearer {token}")];
    let mut raw = Raw::upgraded(port, "confab.v1.json", &header).await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    raw.text(r#"{"type":"hello"}"#).await;
    assert_eq!(raw.json().await["type"], "welcome");
    let send =
        json!({"type": "send", "id": id, "conversationId": id, "kind": "text", "content": 1});
    raw.text(&send.to_string()).await;
    let error = raw.json().await;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("INSUFFICIENT_SCOPE"), &json!(id))
    );
    raw.text(r#"{"type":"ping"}"#).await;
    assert_eq!(raw.json().await["type"], "pong");
}

async fn assert_refused(url: &str, what: &str, token: &str, code: Code) {
    assert_eq!(over_http(url, token).await, Some(code), "{what}");
    let in_header = opened(url, TokenIn::Header(token.to_owned())).await;
    assert_eq!(in_header, Some((code, None)), "{what}");
    let in_hello = opened(url, TokenIn::Hello(token.to_owned())).await;
    assert_eq!(in_hello, Some((code, Some(code.close_code()))), "{what}");
}

async fn assert_accepted(url: &str, token: &str) {
    assert_eq!(over_http(url, token).await, None);
    assert_eq!(opened(url, TokenIn::Header(token.to_owned())).await, None);
    assert_eq!(opened(url, TokenIn::Hello(token.to_owned())).await, None);
}

/// The code that a read is refused with; none when it is answered. What is wrong inside a token stays untold.
pub(crate) async fn over_http(url: &str, token: &str) -> Option<Code> {
    let bearer = format!("Bearer {token}");
    let answer = Http::new(url, "").unwrap();
    let answer = answer
        .raw(
            "GET",
            "/v1/conversations",
            &[("authorization", &bearer)],
            "",
        )
        .await;
    let answer = answer.unwrap();
    if answer.status == 200 {
        return None;
    }
    let problem: Value = answer.json().unwrap();
    let code: Code = serde_json::from_value(problem["code"].clone()).unwrap();
    assert_eq!(
        (answer.status, &problem["detail"]),
        (code.status(), &json!(code.title()))
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let challenge = answer.header("www-authenticate");
    assert_eq!(
        challenge.is_some_and(|text| text.starts_with("Bearer ")),
        matches!(code.status(), 401 | 403)
    );
    assert_eq!(answer.header("retry-after").is_some(), code.status() == 503);
    Some(code)
}

/// The code that a WebSocket is refused with, and the close code where it was open for that; none when it is welcomed.
pub(crate) async fn opened(url: &str, token: TokenIn) -> Option<(Code, Option<u16>)> {
    match Ws::connect(url, options(token)).await {
        Ok(_) => None,
        Err(WsError::Refused(problem)) => {
            assert_eq!(problem.status, problem.code.status());
            Some((problem.code, None))
        }
        Err(WsError::Rejected { error, closed }) => {
            assert_eq!(closed.reason, error.code.as_str());
            Some((error.code, closed.code))
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn options(token: TokenIn) -> Options {
    Options {
        token,
        ..Options::default()
    }
}

async fn call(url: &str, method: &str, token: &str, body: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let http = Http::new(url, "").unwrap();
    http.raw(method, "/v1/conversations", &headers, body)
        .await
        .unwrap()
        .status
}

fn changed(change: &Value) -> Value {
    merged(&claims("eve"), change)
}

fn merged(base: &Value, change: &Value) -> Value {
    let mut merged = base.as_object().unwrap().clone();
    merged.extend(change.as_object().unwrap().clone());
    merged.into()
}

fn code_of(body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
