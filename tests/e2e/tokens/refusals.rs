//! Operators see why tokens are refused, callers only if configured; waiting for a hello takes no slot.

use std::time::Duration;

use confab_client::{Http, TokenIn, Ws, WsError};
use confab_stack::get;
use serde_json::{Value, json};

use super::{assert_accepted, changed, options, small};
use crate::support::{Cluster, Raw, claims, eventually, sample};

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a read with this token is told, beside the code.
async fn detail(url: &str, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let http = Http::new(url, "").unwrap();
    let answer = http
        .raw("GET", "/v1/conversations", &headers, "")
        .await
        .unwrap();
    assert_eq!(answer.status, 401);
    let problem: Value = answer.json().unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_tokens_are_counted_and_logged_without_them() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let gateway = &cluster.gateways[0];
    let other = cluster
        .key
        .token(&changed(&json!({"aud": "another-api", "secret": "hush"})));
    let userless = cluster.key.token(&changed(&json!({"sub": 7})));
    for token in [&other, &other, &other, &userless] {
        assert_eq!(
            detail(&gateway.url(), token).await,
            "The token is not valid"
        );
    }
    let count = async |labels: &str| {
        let (_, page) = get(gateway.port(), "/metrics", WAIT_TIMEOUT).await.unwrap();
        let name = format!("confab_auth_refusals_total{{{labels}}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.map(|count| count.parse::<u32>().unwrap())
    };
    assert_eq!(
        count(r#"defect="audience",claim="audience""#).await,
        Some(3)
    );
    assert_eq!(count(r#"defect="bad_claim",claim="user""#).await, Some(1));

    let log = std::fs::read_to_string(gateway.process().log()).unwrap();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("tokens are refused"))
        .collect();
    assert_eq!(lines.len(), 2, "once a minute for each kind: {log}");
    for word in [
        "WARN",
        "another audience",
        "--jwt-audience",
        "confab-tests",
        "another-api",
        "secret",
    ] {
        assert!(lines[0].contains(word), "{word}: {}", lines[0]);
    }
    assert!(!log.contains("hush"), "no value of a claim is logged");
    for token in [&other, &userless] {
        for part in token.split('.') {
            assert!(!log.contains(part), "no token is logged");
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_is_told_why_where_that_is_set() {
    let explain = ("CONFAB_EXPLAIN_REFUSALS", Some("true".to_owned()));
    let cluster = Cluster::start(small(vec![explain])).await;
    let url = cluster.gateways[0].url();
    let token = cluster.key.token(&changed(&json!({"aud": "another-api"})));
    let told = detail(&url, &token).await;
    assert!(
        told.contains("another audience") && told.contains("--jwt-audience"),
        "{told}"
    );
    let Err(WsError::Rejected { error, .. }) =
        Ws::connect(&url, options(TokenIn::Hello(token))).await
    else {
        panic!("a token for another API was taken");
    };
    assert_eq!(error.detail, told);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_without_hello_are_bounded_and_give_way() {
    let env = vec![
        ("CONFAB_HELLO_CONNECTIONS", Some("2".to_owned())),
        ("CONFAB_HELLO_TIMEOUT", Some("120".to_owned())),
    ];
    let cluster = Cluster::start(small(env)).await;
    let gateway = &cluster.gateways[0];
    let token = cluster.key.token(&claims("alice"));
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Raw::upgraded(gateway.port(), "confab.v1.json", &[]).await);
    }
    for raw in &mut silent[..2] {
        let ended = tokio::time::timeout(WAIT_TIMEOUT, raw.frame()).await;
        assert_eq!(ended.unwrap(), None, "the longest silent ones are closed");
    }
    eventually("the others wait", WAIT_TIMEOUT, async || {
        (sample(gateway.port(), "confab_sockets_before_hello").await == 2.0).then_some(())
    })
    .await;
    assert_accepted(&gateway.url(), &token).await;
    // One that has said hello takes no such place.
    let (_, mut ws) = Ws::connect(&gateway.url(), options(TokenIn::Hello(token)))
        .await
        .unwrap();
    for _ in 0..4 {
        silent.push(Raw::upgraded(gateway.port(), "confab.v1.json", &[]).await);
    }
    let quiet = tokio::time::timeout(Duration::from_millis(200), ws.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(sample(gateway.port(), "confab_connections_evicted_total").await >= 5.0);
    cluster.end().await;
}
