//! What ends a session, and what does not.

use std::sync::atomic::AtomicUsize;

use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{Plain, TokenExpiring};

use super::*;
use crate::testing::body;
use crate::ws::WsError;

#[tokio::test]
async fn these_closes_are_the_end() {
    for code in [1000, 1002, 4400, 4403, 4409] {
        let gateways = Gateways::new(1).await;
        let (server, resuming, mut changes) = gateways.open(gateways.options()).await;
        server.closes(code).await;
        let end = closed(&mut changes).await;
        assert_eq!(end.code, Some(code));
        assert_eq!(resuming.is_closed(), Some(end.clone()));
        let late = resuming.send(conversation(), body("late")).await;
        assert_eq!(late, Err(SendError::Closed(end)));
    }
}

#[tokio::test]
async fn bye_ends_session_and_returns_close() {
    let gateways = Gateways::new(1).await;
    let (mut server, resuming, mut changes) = gateways.open(gateways.options()).await;
    let serve = async {
        assert_eq!(server.hears().await, ClientFrame::Bye(Plain::default()));
        server.closes(1000).await;
    };
    let (end, ()) = tokio::join!(resuming.bye(), serve);
    assert_eq!(end.unwrap().code, Some(1000));
    assert_eq!(closed(&mut changes).await.code, Some(1000));
}

#[tokio::test]
async fn leaving_session_ignores_goaway() {
    let gateways = Gateways::new(2).await;
    let (mut server, resuming, _changes) = gateways.open(gateways.options()).await;
    let serve = async {
        assert_eq!(server.hears().await, ClientFrame::Bye(Plain::default()));
        let goaway = Goaway {
            reason: GoawayReason::Drain,
            reconnect_after_ms: 0,
        };
        server.says(said(ServerFrame::Goaway(goaway))).await;
        let elsewhere = gateways.listeners[1].accept();
        let soon = Duration::from_millis(200);
        let came = tokio::time::timeout(soon, elsewhere).await.is_ok();
        assert!(!came, "with a token that would take the session over");
        server.closes(1000).await;
    };
    let (end, ()) = tokio::join!(resuming.bye(), serve);
    assert_eq!(end.unwrap().code, Some(1000));
}

#[tokio::test]
async fn fresh_session_without_events_misses_nothing() {
    let gateways = Gateways::new(1).await;
    let (quiet, busy) = (conversation(), conversation());
    let mut options = gateways.options();
    options.seen = BTreeMap::from([(busy, 3)]);
    let heads = BTreeMap::from([(quiet, 7), (busy, 9)]);
    let serve = async {
        let mut server = gateways.accept(0).await;
        let hello = server.welcomes_with(|welcome| welcome.heads = Some(heads));
        assert_eq!(hello_of(hello.await).heads, Some(true));
        server
    };
    let (server, opened) = tokio::join!(serve, Resuming::open(options));
    let (_resuming, mut changes) = opened.unwrap();
    drop(server);
    let mut server = gateways.accept(0).await;
    let hello = hello_of(server.welcomes().await);
    let held = BTreeMap::from([(quiet, 7), (busy, 3)]);
    assert_eq!(hello.seen, Some(held), "else the quiet one counts from now");
    for (place, seq) in [(busy, 4), (quiet, 8)] {
        server.says(event(place, seq)).await;
        assert_eq!(heard(&mut changes).await, (place, seq));
    }
}

/// Tokens numbered by how often they were asked for.
fn numbered() -> TokenSource {
    let asked = Arc::new(AtomicUsize::new(0));
    TokenSource::asked(move || {
        let token = format!("token {}", asked.fetch_add(1, Ordering::Relaxed));
        std::future::ready(Ok::<_, std::convert::Infallible>(token))
    })
}

#[tokio::test]
async fn token_is_renewed_in_place_or_on_reconnect() {
    let gateways = Gateways::new(1).await;
    let mut options = gateways.options();
    (options.token, options.token_in_hello) = (numbered(), true);
    let (mut server, resuming, _changes) = gateways.open(options).await;
    let expiring = TokenExpiring {
        expires_at: "2026-11-23T10:20:30.123Z".parse().unwrap(),
    };
    server
        .says(said(ServerFrame::TokenExpiring(expiring)))
        .await;
    let ClientFrame::Auth(auth) = server.hears().await else {
        panic!("not auth")
    };
    assert_eq!(auth.token, "token 1");
    server.closes(4401).await;
    let (mut server, hello) = gateways.resumes(0).await;
    assert_eq!(hello.token.as_deref(), Some("token 2"));
    assert_eq!(hello.resume_token.as_deref(), Some("first"));

    let again = async {
        let ClientFrame::Auth(lost) = server.hears().await else {
            panic!("not auth")
        };
        assert_eq!(lost.token, "mine");
        drop(server);
    };
    let (renewed, ()) = tokio::join!(resuming.renew("mine"), again);
    assert!(matches!(renewed, Err(SendError::Closed(_))));
    let (_server, hello) = gateways.resumes(0).await;
    assert_eq!(hello.token.as_deref(), Some("mine"));
}

#[tokio::test]
async fn a_refused_token_without_another_is_the_end() {
    let gateways = Gateways::new(1).await;
    let (server, _resuming, mut changes) = gateways.open(gateways.options()).await;
    server.closes(4401).await;
    assert_eq!(closed(&mut changes).await.code, Some(4401));

    let mut options = gateways.options();
    options.token_in_hello = true;
    let serve = async {
        let mut server = gateways.accept(0).await;
        server.hears().await;
        let error = ErrorFrame::new(None, Failure::of(Code::TokenExpired), "r".into());
        server.says(said(ServerFrame::Error(error))).await;
        server.closes(4401).await;
    };
    let (opened, ()) = tokio::join!(Resuming::open(options), serve);
    let Err(ResumeError::Ws(WsError::Rejected { error, .. })) = opened else {
        panic!("opened")
    };
    assert_eq!(error.code, Code::TokenExpired);
}

#[tokio::test]
async fn silence_is_death() {
    let gateways = Gateways::new(2).await;
    let serve = async {
        let mut server = gateways.accept(0).await;
        server
            .welcomes_with(|welcome| welcome.heartbeat_seconds = 1)
            .await;
        server
    };
    let (mut server, opened) = tokio::join!(serve, Resuming::open(gateways.options()));
    let (_resuming, mut changes) = opened.unwrap();
    // It waits for nothing: a silence that ends in time, so that another one begins, which is the death.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.pings().await;
    let began = tokio::time::Instant::now();
    let (_server, _hello) = gateways.resumes(1).await;
    let silent = began.elapsed();
    assert!(silent >= Duration::from_millis(1900), "{silent:?}");
    assert!(matches!(told(&mut changes).await, Change::Connected { .. }));
    let lost = told(&mut changes).await;
    assert!(
        matches!(&lost, Change::Disconnected(closed) if closed.reason.contains("nothing was heard")),
        "{lost:?}"
    );
}

#[tokio::test]
async fn full_gateway_is_avoided_for_its_delay() {
    let gateways = Gateways::new(1).await;
    let (server, _resuming, _changes) = gateways.open(gateways.options()).await;
    drop(server);
    let mut server = gateways.accept(0).await;
    server.hears().await;
    let failure = Failure::of(Code::Overloaded).retry_after(400);
    let error = ErrorFrame::new(None, failure, "r".into());
    server.says(said(ServerFrame::Error(error))).await;
    server.closes(1013).await;
    let began = tokio::time::Instant::now();
    let (_server, hello) = gateways.resumes(0).await;
    assert!(began.elapsed() >= Duration::from_millis(390));
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
}
