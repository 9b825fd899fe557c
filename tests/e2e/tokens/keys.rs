//! Key sets from a URL: rotated, broken and unreachable.

use std::time::Duration;

use confab_client::TokenIn;
use confab_protocol::error::Code;
use confab_stack::get;
use tokio::time::Instant;

use super::{assert_accepted, assert_refused, opened, over_http, small};
use crate::support::{Cluster, Jwks, Key, claims, eventually, hs256, jwks, unsigned};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds between two fetches for unknown keys.
const FETCH_INTERVAL_SECONDS: u64 = 1;

/// A cluster whose keys come from `server` and which allows ES256 and Ed25519.
async fn cluster(server: &Jwks) -> Cluster {
    let env = vec![
        ("CONFAB_JWT_PUBLIC_KEY", None),
        ("CONFAB_JWT_JWKS_URL", Some(server.url.clone())),
        (
            "CONFAB_JWT_JWKS_INTERVAL",
            Some(FETCH_INTERVAL_SECONDS.to_string()),
        ),
        ("CONFAB_JWT_ALGORITHMS", Some("ES256,EdDSA".to_owned())),
    ];
    Cluster::start(small(env)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_key_set_refuses_old_key() {
    let (old, new, next) = (Key::es256("old"), Key::eddsa("new"), Key::es256("next"));
    let server = Jwks::start(jwks([&old])).await;
    let cluster = cluster(&server).await;
    let url = cluster.gateways[0].url();
    assert_accepted(&url, &old.token(&claims("alice"))).await;
    assert_refused(
        &url,
        "not there yet",
        &new.token(&claims("alice")),
        Code::InvalidToken,
    )
    .await;

    server.set(200, jwks([&old, &new]));
    accepted(&url, &new).await;
    assert_accepted(&url, &new.token(&claims("alice"))).await;
    assert_accepted(&url, &old.token(&claims("alice"))).await;

    server.set(200, jwks([&new, &next]));
    accepted(&url, &next).await;
    assert_refused(
        &url,
        "gone",
        &old.token(&claims("alice")),
        Code::InvalidToken,
    )
    .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_algorithm_is_refused_for_any_key_set() {
    let (ec, rsa) = (Key::es256("ec"), Key::rs256("rsa"));
    let server = Jwks::start(jwks([&ec, &rsa])).await;
    let cluster = cluster(&server).await;
    let url = cluster.gateways[0].url();
    let claims = claims("eve");
    let body = ec.jwk();
    let forged = [
        ("RS256, not allowed here", rsa.token(&claims)),
        (
            "an EC key's id, by Ed25519",
            Key::eddsa("ec").token(&claims),
        ),
        ("an RSA key's id, by EC", Key::es256("rsa").token(&claims)),
        (
            "HS256 by the PEM",
            hs256(ec.public_pem().as_bytes(), "ec", &claims),
        ),
        (
            "HS256 by the RSA key's PEM",
            hs256(rsa.public_pem().as_bytes(), "rsa", &claims),
        ),
        (
            "HS256 by the key set",
            hs256(body.to_string().as_bytes(), "ec", &claims),
        ),
        ("none", unsigned(&claims)),
    ];
    for (what, token) in forged {
        assert_refused(&url, what, &token, Code::InvalidToken).await;
    }
    assert_accepted(&url, &ec.token(&claims)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_keys_serve_while_key_set_fails() {
    let (known, new) = (Key::es256("known"), Key::es256("new"));
    let mut server = Jwks::start(jwks([&known])).await;
    let cluster = cluster(&server).await;
    let url = cluster.gateways[0].url();
    let (token, unknown) = (known.token(&claims("alice")), new.token(&claims("alice")));
    let symmetric = r#"{"keys":[{"kty":"oct","kid":"new","k":"c2VjcmV0","alg":"HS256"}]}"#;
    let broken = [
        (500, jwks([&new])),
        (302, String::new()),
        (200, String::new()),
        (200, "{}".to_owned()),
        (200, jwks([])),
        (200, symmetric.to_owned()),
        (200, "[".repeat(2 * 1024 * 1024)),
    ];
    for (status, body) in broken {
        server.set(status, body);
        fetched(&server, &url, &unknown).await;
        assert_accepted(&url, &token).await;
    }

    server.down().await;
    assert_refused(&url, "unknown while down", &unknown, Code::InvalidToken).await;
    assert_accepted(&url, &token).await;
    server.set(200, jwks([&known, &new]));
    server.up().await;
    accepted(&url, &new).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_key_set_is_retryable_until_loaded() {
    let key = Key::es256("key");
    let mut server = Jwks::start(jwks([&key])).await;
    let mut cluster = cluster(&server).await;
    let url = cluster.gateways[0].url();
    let port = cluster.gateways[0].port();
    let token = key.token(&claims("alice"));
    server.down().await;
    cluster.gateways[0].respawn().unwrap();
    eventually("the gateway listens", WAIT_TIMEOUT, async || {
        get(port, "/health", WAIT_TIMEOUT).await.ok()
    })
    .await;

    assert_eq!(over_http(&url, &token).await, Some(Code::AuthUnavailable));
    let in_header = opened(&url, TokenIn::Header(token.clone())).await;
    assert_eq!(in_header, Some((Code::AuthUnavailable, None)));
    let in_hello = opened(&url, TokenIn::Hello(token.clone())).await;
    assert_eq!(in_hello, Some((Code::AuthUnavailable, Some(1013))));
    assert_eq!(over_http(&url, "").await, Some(Code::MissingToken));
    assert_eq!(get(port, "/ready", WAIT_TIMEOUT).await.unwrap().0, 503);

    server.up().await;
    cluster.ready().await;
    assert_accepted(&url, &token).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_cause_one_fetch_per_interval() {
    let known = Key::es256("known");
    let server = Jwks::start(jwks([&known])).await;
    let cluster = cluster(&server).await;
    let url = cluster.gateways[0].url();
    let (before, began) = (server.fetches(), Instant::now());
    let strangers = (0..60).map(|number| {
        let token = Key::es256(&format!("stranger-{number}")).token(&claims("eve"));
        let url = url.clone();
        async move { over_http(&url, &token).await }
    });

    let refusals = futures_util::future::join_all(strangers).await;

    assert!(
        refusals
            .iter()
            .all(|code| *code == Some(Code::InvalidToken))
    );
    let fetches = server.fetches() - before;
    let intervals = usize::try_from(began.elapsed().as_secs() / FETCH_INTERVAL_SECONDS).unwrap();
    assert!(
        (1..=intervals + 2).contains(&fetches),
        "{fetches} fetches in {:?}",
        began.elapsed()
    );
    cluster.end().await;
}

async fn accepted(url: &str, key: &Key) {
    eventually("the new key is taken", WAIT_TIMEOUT, async || {
        over_http(url, &key.token(&claims("alice")))
            .await
            .is_none()
            .then_some(())
    })
    .await;
}

/// Asks with an unknown key until the set was fetched twice more: the first fetch may have begun before.
async fn fetched(server: &Jwks, url: &str, unknown: &str) {
    let enough = server.fetches() + 2;
    eventually("the set is fetched again", WAIT_TIMEOUT, async || {
        assert_eq!(over_http(url, unknown).await, Some(Code::InvalidToken));
        (server.fetches() >= enough).then_some(())
    })
    .await;
}
