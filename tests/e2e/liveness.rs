//! A gateway's health endpoints answer even when clients hold every connection.

use std::time::Duration;

use confab_client::{Options, Session};
use confab_stack::get;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::{Cluster, Raw, Setup, id_of, sample, soak};

const JSON_SUBPROTOCOL: &str = "confab.v1.json";
/// Connections that the gateway may have, of each kind.
const MAX_CONNECTIONS: usize = 16;
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a probe may take: the promise is a second, which a machine that builds and runs other tests meanwhile may not keep.
fn longest() -> Duration {
    Duration::from_millis(soak(1_000, 3_000) as u64)
}

async fn cluster() -> Cluster {
    let env = vec![
        ("CONFAB_MAX_CONNECTIONS", Some(MAX_CONNECTIONS.to_string())),
        // Longer than the test: nobody makes room by being late.
        ("CONFAB_HEADER_TIMEOUT", Some("120".to_owned())),
        ("CONFAB_BODY_TIMEOUT", Some("120".to_owned())),
        ("CONFAB_HELLO_TIMEOUT", Some("120".to_owned())),
    ];
    Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env,
        ..Setup::default()
    })
    .await
}

/// Connections that say nothing, or begin a head that never ends.
async fn silent(port: u16, count: usize) -> Vec<Raw> {
    let connecting = (0..count).map(|number| async move {
        let mut raw = Raw::connect(port).await;
        if number % 2 == 0 {
            // It may be closed already.
            let _closed = raw.write(b"GET /health HTTP/1.1\r\nX-").await.is_err();
        }
        raw
    });
    join_all(connecting).await
}

async fn assert_probes(port: u16) {
    for path in ["/health", "/ready", "/metrics", "/version"] {
        let began = Instant::now();
        let answer = get(port, path, longest()).await;
        assert!(matches!(answer, Ok((200, _))), "{path}: {answer:?}");
        println!("{path} took {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_nobody_out() {
    let cluster = cluster().await;
    let port = cluster.gateways[0].port();
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let held = silent(port, soak(2_000, 200)).await;
    assert_probes(port).await;
    let asking = async {
        alice.says(0, &path, "through the crowd").await;
        drop(alice.on(0).await);
    };
    timeout(longest(), asking).await.expect("served at once");
    assert!(sample(port, "confab_connections_evicted_total").await > 100.0);
    assert!(sample(port, "confab_connections").await <= 2.0 * MAX_CONNECTIONS as f64 + 64.0);
    drop(held);
    cluster.end().await;
}

/// Sends a message on a connection of its own: one that was kept may have been given to another meanwhile.
async fn asks(port: u16, token: &str, path: &str) {
    let message = json!({"conversationId": id_of(path), "kind": "text", "content": 1}).to_string();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: confab\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{message}",
        message.len()
    );
    let mut raw = Raw::connect(port).await;
    raw.write(request.as_bytes()).await.unwrap();
    assert_eq!(raw.status().await, Some(201));
}

/// One user's bodies that never come to an end give way to whoever asks for something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_keep_nobody_out() {
    let cluster = cluster().await;
    let port = cluster.gateways[0].port();
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: confab\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {}\r\nContent-Length: 1000\r\n\r\n{{",
        cluster.user("mallory").token
    );
    let mut slow = Vec::new();
    for _ in 0..soak(2_000, 200) {
        let mut raw = Raw::connect(port).await;
        raw.write(head.as_bytes()).await.unwrap();
        slow.push(raw);
        if slow.len().is_multiple_of(20) {
            let asking = asks(port, &alice.token, &path);
            timeout(longest(), asking).await.expect("served at once");
        }
    }
    assert_probes(port).await;
    let (status, body) = get(port, "/v1/conversations", WAIT_TIMEOUT).await.unwrap();
    assert_eq!(status, 401, "{body}");
    assert!(sample(port, "confab_connections_evicted_total").await > 100.0);
    assert!(sample(port, "confab_connections").await <= 2.0 * MAX_CONNECTIONS as f64 + 64.0);
    drop(slow);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_without_hello_keep_no_session_out() {
    let cluster = cluster().await;
    let port = cluster.gateways[0].port();
    let alice = cluster.user("alice");
    let mut held = Vec::new();
    for _ in 0..soak(500, 50) {
        held.push(Raw::upgraded(port, JSON_SUBPROTOCOL, &[]).await);
    }
    let mut sessions = Vec::new();
    for _ in 0..MAX_CONNECTIONS / 2 {
        let opening = Session::open(alice.url(0), Options::bearer(&alice.token));
        let opened = timeout(longest(), opening).await.expect("opened at once");
        sessions.push(opened.unwrap());
        held.push(Raw::upgraded(port, JSON_SUBPROTOCOL, &[]).await);
    }
    assert_probes(port).await;
    for (session, _) in &sessions {
        let listed = alice.http(0).sessions().await.unwrap();
        let id = session.welcome().session_id;
        assert!(listed.iter().any(|one| one.id == id), "a session was lost");
    }
    drop((held, sessions));
    cluster.end().await;
}
