//! A client beyond its rate limit is told when to retry, and nobody else is limited.

use std::time::Duration;

use confab_client::Response;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Cluster, Raw, Setup, User, claims, eventually};

const CONVERSATIONS_PATH: &str = "/v1/conversations";
const JSON_SUBPROTOCOL: &str = "confab.v1.json";
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

async fn cluster(limits: &str, trusted_proxies: usize) -> Cluster {
    let env = vec![
        ("CONFAB_RATE_LIMIT", Some(limits.to_owned())),
        ("CONFAB_TRUSTED_PROXIES", Some(trusted_proxies.to_string())),
    ];
    Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env,
        ..Setup::default()
    })
    .await
}

async fn list(user: &User, headers: &[(&str, &str)]) -> Response {
    let bearer = format!("Bearer {}", user.token);
    let headers = [headers, &[("authorization", bearer.as_str())]].concat();
    let http = user.http(0);
    http.raw("GET", CONVERSATIONS_PATH, &headers, Vec::new())
        .await
        .unwrap()
}

/// Asks until a refusal; gives the answers before it, and the refusal. A bucket of `burst` fills by one a second.
async fn until_refused(
    burst: usize,
    mut ask: impl AsyncFnMut() -> Response,
) -> (Vec<Response>, Response) {
    let began = Instant::now();
    let mut before = Vec::new();
    loop {
        let answer = ask().await;
        if answer.status == 429 {
            let most = burst + usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
            let count = before.len();
            assert!(count <= most, "{count} were answered of {burst}");
            return (before, answer);
        }
        before.push(answer);
        assert!(
            began.elapsed() < WAIT_TIMEOUT,
            "{} were answered",
            before.len()
        );
    }
}

fn assert_limited(answer: &Response, scope: &str) {
    let problem: Value = answer.json().unwrap();
    assert_eq!(
        (answer.status, &problem["code"]),
        (429, &"RATE_LIMITED".into())
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let limit = answer.header("ratelimit").unwrap();
    assert!(limit.starts_with(&format!("\"{scope}\";r=0;t=")), "{limit}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").is_some());
}

/// Waits as long as a refusal says, and no longer: then there is room again.
async fn waits_as_told(refusal: &Response) {
    let seconds = refusal.header("retry-after").unwrap().parse().unwrap();
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limit_binds_device_then_user_only() {
    let cluster = cluster("user=1/12,device=1/6,address=1000/1000", 0).await;
    let phone = cluster.user("alice");
    let mut other = claims("alice");
    other["deviceId"] = json!("laptop");
    let laptop = cluster.user_of(&other);

    let (before, refusal) = until_refused(6, async || list(&phone, &[]).await).await;
    assert!(before.len() >= 6, "{}", before.len());
    let policy = r#""user";q=12;w=12, "device";q=6;w=6, "address";q=1000;w=1"#;
    for answer in before.iter().chain([&refusal]) {
        assert_eq!(answer.header("ratelimit-policy"), Some(policy));
    }
    assert_eq!(before[0].header("ratelimit"), Some(r#""device";r=5;t=1"#));
    assert_limited(&refusal, "device");
    // A device's refusals use up nothing of its user's.
    for _ in 0..30 {
        list(&phone, &[]).await;
    }

    let (before, refusal) = until_refused(6, async || list(&laptop, &[]).await).await;
    assert!(before.len() >= 4, "{}", before.len());
    let scope = refusal.header("ratelimit").unwrap();
    assert!(scope.starts_with("\"user\"") || scope.starts_with("\"device\""));
    assert_eq!(list(&cluster.user("bob"), &[]).await.status, 200);
    waits_as_told(&refusal).await;
    assert_eq!(list(&laptop, &[]).await.status, 200, "after Retry-After");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_limit_precedes_tokens_and_ignores_forwarded() {
    let cluster = cluster("address=1/8", 0).await;
    let alice = cluster.user("alice");
    let mut number = 0;
    let lies = async || {
        number += 1;
        let lie = format!("10.0.0.{number}");
        let headers = [("x-forwarded-for", lie.as_str())];
        let http = alice.http(0);
        http.raw("GET", CONVERSATIONS_PATH, &headers, Vec::new())
            .await
            .unwrap()
    };
    let (before, refusal) = until_refused(8, lies).await;
    assert!(before.len() >= 8, "{}", before.len());
    assert!(before.iter().all(|answer| answer.status == 401));
    assert_limited(&refusal, "address");
    let policy = Some(r#""address";q=8;w=8"#);
    assert_eq!(refusal.header("ratelimit-policy"), policy);
    let mut upgrade = Raw::connect(cluster.gateways[0].port()).await;
    let (status, body) = upgrade.upgrade("/v1/ws", JSON_SUBPROTOCOL, &[]).await;
    assert_eq!(status, 429, "{body}");
    for _ in 0..20 {
        let health = alice.http(0).raw("GET", "/health", &[], Vec::new()).await;
        let health = health.unwrap();
        assert_eq!(health.status, 200, "orchestrators are never limited");
        assert_eq!(health.header("ratelimit"), None);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_proxies_yield_outermost_seen_address() {
    let cluster = cluster("address=1/8", 2).await;
    let alice = cluster.user("alice");
    let through = async |said: &str| list(&alice, &[("x-forwarded-for", said)]).await;
    let mut number = 0;
    let lies = async || {
        number += 1;
        through(&format!("10.0.0.{number}, 192.0.2.1, 203.0.113.7")).await
    };
    let (before, refusal) = until_refused(8, lies).await;
    assert!(before.len() >= 8, "{}", before.len());
    assert_limited(&refusal, "address");
    assert_eq!(through("192.0.2.2, 203.0.113.7").await.status, 200);
    // One host has a whole /64, and may not use its addresses one after the other.
    let mut host = 0;
    let v6 = async || {
        host += 1;
        through(&format!("2001:db8:0:1::{host:x}, 203.0.113.7")).await
    };
    let (_, refusal) = until_refused(8, v6).await;
    assert_limited(&refusal, "address");
    assert_eq!(through("2001:db8:0:2::1, 203.0.113.7").await.status, 200);
    cluster.end().await;
}

async fn welcomed(cluster: &Cluster, user: &User) -> Raw {
    let bearer = [format!("Authorization: Bearer {}", user.token)];
    let mut raw = Raw::upgraded(cluster.gateways[0].port(), JSON_SUBPROTOCOL, &bearer).await;
    raw.text(r#"{"type":"hello"}"#).await;
    assert_eq!(raw.json().await["type"], "welcome");
    raw
}

/// A send to nowhere: what it is answered with is no event that comes between.
fn send() -> String {
    let id = uuid::Uuid::now_v7();
    let to = uuid::Uuid::now_v7();
    json!({"type": "send", "id": id, "conversationId": to, "kind": "text", "content": 1})
        .to_string()
}

/// Sends, and gives the answer.
async fn sent(raw: &mut Raw) -> Value {
    raw.text(&send()).await;
    raw.json().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn excess_frame_is_refused_and_reconnect_refills_nothing() {
    let cluster = cluster("user=1/1000,device=1/20", 0).await;
    let alice = cluster.user("alice");
    let mut raw = welcomed(&cluster, &alice).await;
    let began = Instant::now();
    let mut answered = 0;
    let refusal = loop {
        let answer = sent(&mut raw).await;
        if answer["code"] == "RATE_LIMITED" {
            break answer;
        }
        assert_eq!(answer["code"], "CONVERSATION_NOT_FOUND", "{answer}");
        answered += 1;
        assert!(began.elapsed() < WAIT_TIMEOUT);
    };
    let empty = Instant::now();
    // The connection has its price.
    let most = 15 + began.elapsed().as_secs() + 1;
    assert!((14..=most).contains(&answered), "{answered}");
    assert_eq!(refusal["type"], "error");
    assert!(refusal["id"].is_string(), "{refusal}");
    let wait = refusal["retryAfterMs"].as_u64().unwrap();
    assert!((1..=1000).contains(&wait), "{wait}");
    drop(raw);

    // What comes back meanwhile is one a second, and a connection takes five of them.
    let mut raw = eventually("a connection", WAIT_TIMEOUT, async || {
        connects(&cluster, &alice).await
    })
    .await;
    let refusal = sent(&mut raw).await;
    assert_eq!(refusal["code"], "RATE_LIMITED");
    sleep(Duration::from_millis(
        refusal["retryAfterMs"].as_u64().unwrap(),
    ))
    .await;
    assert_eq!(sent(&mut raw).await["code"], "CONVERSATION_NOT_FOUND");
    assert!(
        empty.elapsed() > Duration::from_secs(4),
        "{:?}",
        empty.elapsed()
    );
    // HTTP and WebSocket share the bucket.
    let (_, refusal) = until_refused(0, async || list(&alice, &[]).await).await;
    assert_limited(&refusal, "device");
    cluster.end().await;
}

/// A socket that was let in, unless the connection is refused.
async fn connects(cluster: &Cluster, user: &User) -> Option<Raw> {
    let bearer = [format!("Authorization: Bearer {}", user.token)];
    let mut raw = Raw::connect(cluster.gateways[0].port()).await;
    let (status, _) = raw.upgrade("/v1/ws", JSON_SUBPROTOCOL, &bearer).await;
    if status != 101 {
        assert_eq!(status, 429);
        return None;
    }
    raw.text(r#"{"type":"hello"}"#).await;
    assert_eq!(raw.json().await["type"], "welcome");
    Some(raw)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_connects_beyond_rate_are_refused() {
    let cluster = cluster("user=2/100,device=2/10", 0).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let began = Instant::now();
    let mut let_in = 0;
    for _ in 0..60 {
        let_in += u64::from(connects(&cluster, &alice).await.is_some());
    }
    // Five each, of ten and two a second.
    let most = (10 + 2 * (began.elapsed().as_secs() + 1)) / 5 + 2;
    assert!((2..=most).contains(&let_in), "{let_in} of 60");
    assert!(connects(&cluster, &bob).await.is_some());
    // With the token in hello it is the same.
    let mut raw = Raw::upgraded(cluster.gateways[0].port(), JSON_SUBPROTOCOL, &[]).await;
    let hello = json!({"type": "hello", "token": alice.token});
    raw.text(&hello.to_string()).await;
    let end = timeout(WAIT_TIMEOUT, raw.ended()).await.unwrap();
    assert_eq!(end.close, Some((4429, "RATE_LIMITED".to_owned())));
    assert_eq!(end.before[0]["code"], "RATE_LIMITED");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_has_a_price() {
    let cluster = cluster("user=1/60", 0).await;
    let positions: Vec<_> = (0..2000_u128)
        .map(|n| format!("\"{}\":1", uuid::Uuid::from_u128(n)))
        .collect();
    let seen = format!(
        "{{\"type\":\"seen\",\"positions\":{{{}}}}}",
        positions.join(",")
    );
    let frames = [
        ("ping", r#"{"type":"ping","id":"1"}"#.to_owned(), 56),
        ("seen", seen, 3),
        (
            "auth",
            json!({"type": "auth", "token": "x"}).to_string(),
            28,
        ),
        (
            "presence",
            json!({"type": "presence", "status": "away"}).to_string(),
            56,
        ),
        ("bad", r#"{"type":"nonsense"}"#.to_owned(), 10),
    ];
    for (name, frame, most) in frames {
        let user = cluster.user(name);
        let mut raw = welcomed(&cluster, &user).await;
        let began = Instant::now();
        for _ in 0..200 {
            let bytes = crate::support::frame(crate::support::TEXT_BYTE, frame.as_bytes());
            if raw.write(&bytes).await.is_err() {
                break;
            }
        }
        let end = timeout(WAIT_TIMEOUT, raw.ended()).await.unwrap();
        let refused = end
            .before
            .iter()
            .filter(|one| one["code"] == "RATE_LIMITED")
            .count();
        let grown = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        if name == "bad" {
            // Ten of them end the connection before they are refused.
            assert_eq!(end.code(), Some(4400));
            continue;
        }
        assert_eq!(end.code(), Some(4429), "{name}");
        assert_eq!(refused, 100, "{name}");
        let others = end.before.len() - refused;
        assert!(others <= most + grown, "{name}: {others} answered");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixed_forwarded_bytes_do_not_change_address() {
    let cluster = cluster("address=1/8", 1).await;
    let asked = async |n: usize, said: &str| {
        let mut raw = Raw::connect(cluster.gateways[0].port()).await;
        let said = format!("X-Forwarded-For: {n}{said}, 192.0.2.1");
        raw.request("GET", CONVERSATIONS_PATH, &[said], "").await.0
    };
    let mut statuses = Vec::new();
    for n in 0..20 {
        statuses.push(asked(n, "").await);
    }
    for n in 0..20 {
        statuses.push(asked(n, "\u{e9}").await);
    }
    let answered = statuses.iter().filter(|status| **status == 401).count();
    assert!((8..14).contains(&answered), "{statuses:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ignoring_hundred_refusals_closes_with_4429() {
    let cluster = cluster("user=1/3", 0).await;
    let alice = cluster.user("alice");
    let mut raw = welcomed(&cluster, &alice).await;
    for _ in 0..130 {
        // The connection may end while more is written to it.
        let bytes = crate::support::frame(crate::support::TEXT_BYTE, send().as_bytes());
        if raw.write(&bytes).await.is_err() {
            break;
        }
    }
    let end = timeout(WAIT_TIMEOUT, raw.ended()).await.unwrap();
    assert_eq!(end.close, Some((4429, "RATE_LIMITED".to_owned())));
    let refused = end
        .before
        .iter()
        .filter(|frame| frame["code"] == "RATE_LIMITED");
    assert_eq!(refused.count(), 100);
    cluster.end().await;
}
