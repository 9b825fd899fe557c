use std::sync::Arc;
use std::task::Poll;

use super::fetch::FetchError;
use super::set::SetRefused;
use super::*;
use crate::mint::{Key, jwks};
use crate::testing::server::{KeyServer, ServerAnswer};
use crate::testing::{RunningVerifier, TEST_NOW, claims, eventually};
use crate::{Caller, Verifier};

const FETCH_INTERVAL: Duration = Duration::from_secs(30);

/// An interval that no test lives to see the end of.
const FETCH_ONCE: &[&str] = &["--jwt-jwks-interval", "3600"];

#[test]
fn pending_fetch_is_shared_and_next_waits_interval() {
    let (mut asked, start) = (FetchRequests::default(), Instant::now());
    assert_eq!(asked.ask(0, start, FETCH_INTERVAL), Some(1));
    assert_eq!(
        asked.ask(0, start + FETCH_INTERVAL * 2, FETCH_INTERVAL),
        Some(1)
    );
    assert_eq!(
        asked.ask(1, start + FETCH_INTERVAL / 2, FETCH_INTERVAL),
        None
    );
    assert_eq!(
        asked.ask(1, start + FETCH_INTERVAL, FETCH_INTERVAL),
        Some(2)
    );
}

#[test]
fn failed_fetch_retries_sooner_at_most_once_second() {
    let pace = FetchPace {
        interval: FETCH_INTERVAL,
        max_age: FETCH_INTERVAL * 20,
        timeout: FIRST_RETRY,
    };
    let seconds = |failures| pause(failures, pace).as_secs();
    assert_eq!([0, 1, 2, 5, 6, 90].map(seconds), [600, 1, 2, 16, 30, 30]);
}

fn body(keys: &[&Key]) -> ServerAnswer {
    ServerAnswer::Body(jwks(keys.iter().copied()))
}

async fn verify(verifier: &Verifier, key: &Key) -> Result<Caller, AuthError> {
    verifier
        .verify(&key.mint(&claims()).unwrap(), TEST_NOW)
        .await
}

fn unknown() -> Result<Caller, AuthError> {
    Err(Defect::UnknownKey.into())
}

#[tokio::test]
async fn key_set_holds_all_three_kinds() {
    let keys = [
        Key::generate(),
        Key::generate_rsa(),
        Key::generate_ed25519(),
    ]
    .map(Result::unwrap);
    let server = KeyServer::start(body(&keys.each_ref())).await;
    let all = ["--jwt-algorithms", "RS256,ES256,EdDSA"];
    let verifier = RunningVerifier::ready(&server.url, &all).await;
    for key in &keys {
        assert!(verify(&verifier, key).await.is_ok());
    }
    let default = RunningVerifier::ready(&server.url, &[]).await;
    assert_eq!(
        verify(&default, &keys[2]).await,
        Err(Defect::Algorithm.into())
    );
}

#[tokio::test]
async fn rotated_key_is_fetched_on_demand_replacing_old() {
    let (old, new) = (Key::generate().unwrap(), Key::generate_rsa().unwrap());
    let server = KeyServer::start(body(&[&old])).await;
    let verifier = RunningVerifier::ready(&server.url, FETCH_ONCE).await;
    assert!(verify(&verifier, &old).await.is_ok());
    server.answer(body(&[&new]));
    assert!(verify(&verifier, &new).await.is_ok());
    assert_eq!(verify(&verifier, &old).await, unknown());
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_per_interval() {
    let (good, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let server = KeyServer::start(body(&[&good])).await;
    let verifier = Arc::new(RunningVerifier::ready(&server.url, FETCH_ONCE).await);
    server.answer(body(&[&good, &new]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (verifier, token) = (Arc::clone(&verifier), new.mint(&claims()).unwrap());
        tasks.spawn(async move { verifier.verify(&token, TEST_NOW).await.is_ok() });
    }
    assert!(
        tasks.join_all().await.into_iter().all(|found| found),
        "all wait for the one fetch"
    );
    for _ in 0..20 {
        assert_eq!(
            verify(&verifier, &Key::generate().unwrap()).await,
            unknown()
        );
    }
    assert!(verify(&verifier, &good).await.is_ok());
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn cancelled_caller_does_not_cancel_fetch() {
    let (good, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let server = KeyServer::start(body(&[&good])).await;
    let verifier = RunningVerifier::ready(&server.url, FETCH_ONCE).await;
    server.answer(body(&[&good, &new]));
    let token = new.mint(&claims()).unwrap();
    {
        let mut gone = std::pin::pin!(verifier.verify(&token, TEST_NOW));
        let once = std::future::poll_fn(|context| Poll::Ready(gone.as_mut().poll(context)));
        assert!(once.await.is_pending());
    }
    eventually(|| server.requests() == 2).await;
    assert!(verify(&verifier, &new).await.is_ok());
}

#[tokio::test]
async fn verifier_refuses_before_first_set_then_recovers() {
    let key = Key::generate().unwrap();
    let server = KeyServer::start(ServerAnswer::Raw(String::new())).await;
    let verifier = RunningVerifier::start(&server.url, &[]);
    eventually(|| server.requests() > 0).await;
    assert!(!verifier.has_keys());
    assert_eq!(verify(&verifier, &key).await, Err(AuthError::Unavailable));
    server.answer(body(&[&key]));
    eventually(|| verifier.has_keys()).await;
    assert!(verify(&verifier, &key).await.is_ok());
}

#[tokio::test]
async fn last_good_set_survives_bad_answers() {
    let (good, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let text = |keys: &str| ServerAnswer::Body(keys.to_owned());
    for bad in [
        ServerAnswer::Raw(String::new()),
        ServerAnswer::Raw("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".into()),
        text(r#"{"keys":[]}"#),
        text("<html>"),
        text(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        body(&[&other, &other]),
    ] {
        let server = KeyServer::start(body(&[&good])).await;
        let verifier = RunningVerifier::ready(&server.url, FETCH_ONCE).await;
        server.answer(bad);
        assert_eq!(verify(&verifier, &other).await, unknown());
        assert!(server.requests() >= 2);
        assert!(verify(&verifier, &good).await.is_ok());
    }
}

#[tokio::test]
async fn hanging_url_delays_only_unknown_keys_until_timeout() {
    let (good, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    let server = KeyServer::start(body(&[&good])).await;
    let arguments = [FETCH_ONCE, &["--jwt-jwks-timeout", "1"]].concat();
    let verifier = RunningVerifier::ready(&server.url, &arguments).await;
    server.answer(ServerAnswer::Stall);
    let token = other.mint(&claims()).unwrap();
    let waiting = async {
        let start = Instant::now();
        assert_eq!(verifier.verify(&token, TEST_NOW).await, unknown());
        start.elapsed()
    };
    let served = async {
        eventually(|| server.requests() == 2).await;
        assert!(verify(&verifier, &good).await.is_ok());
        Instant::now()
    };
    let start = Instant::now();
    let (waited, served) = tokio::join!(waiting, served);
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    assert!(served - start < waited, "the known key did not wait");
}

#[tokio::test]
async fn set_is_fetched_again_at_maximum_age() {
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    let server = KeyServer::start(body(&[&old])).await;
    let _verifier = RunningVerifier::ready(&server.url, &["--jwt-jwks-max-age", "1"]).await;
    server.answer(body(&[&new]));
    eventually(|| server.requests() >= 3).await;
}

async fn fetched(answer: ServerAnswer) -> (Result<KeySet, FetchError>, usize) {
    let server = KeyServer::start(answer).await;
    let url = server.url.parse().unwrap();
    let remote = Remote::new(&url, Duration::from_secs(1)).unwrap();
    (remote.fetch().await, server.requests())
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let head = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let (result, requests) = fetched(ServerAnswer::Raw(head.into())).await;
    assert!(matches!(result, Err(FetchError::Status(status)) if status == 302));
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn set_fetch_is_bounded_in_size_and_time() {
    let large = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(1024 * 1024));
    assert!(matches!(
        fetched(ServerAnswer::Body(large.clone())).await.0,
        Err(FetchError::TooLarge)
    ));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100010\r\n";
    let endless = ServerAnswer::Raw(format!("{chunked}{large}"));
    assert!(matches!(
        fetched(endless).await.0,
        Err(FetchError::TooLarge)
    ));
    assert!(matches!(
        fetched(ServerAnswer::Stall).await.0,
        Err(FetchError::Slow(_))
    ));
}

#[tokio::test]
async fn a_set_that_breaks_off_is_not_used() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"keys\":[]}";
    assert!(matches!(
        fetched(ServerAnswer::Raw(cut.into())).await.0,
        Err(FetchError::Http(_))
    ));
    let empty = fetched(ServerAnswer::Body("{\"keys\":[]}".into())).await.0;
    assert!(matches!(empty, Err(FetchError::Set(SetRefused::Empty(0)))));
}
