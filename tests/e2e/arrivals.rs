//! Excess connects wait for a bounded time or are told when to retry; resumes go first.

use std::time::Duration;

use confab_client::{Options, Ws, WsError};
use confab_protocol::error::Code;
use confab_protocol::frame::Hello;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Cluster, Setup, User, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn excess_connects_wait_or_retry_and_resumes_first() {
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_CONNECT_RATE", Some("1".to_owned()))],
        ..Setup::default()
    })
    .await;
    let (alice, mallory) = (cluster.user("alice"), cluster.user("mallory"));
    let resuming = |user: &User, token: Option<String>| Options {
        hello: Hello {
            resume_token: token,
            ..Hello::default()
        },
        ..Options::bearer(&user.token)
    };
    let made_up = |user: &User| resuming(user, Some("A".repeat(64)));
    let eve = made_up(&cluster.user("eve"));
    // A gateway that has begun lately does not know yet that the token is unknown.
    let known = async || Ws::connect(alice.url(0), eve.clone()).await.ok();
    drop(eventually("the token is unknown", Duration::from_secs(20), known).await);
    let mut session = Ws::connect(alice.url(0), resuming(&alice, None))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let user = cluster.user(&format!("user-{n}"));
        tasks.spawn(async move { Ws::connect(user.url(0), Options::bearer(&user.token)).await });
    }
    let begin = Instant::now();
    for _ in 0..5 {
        let token = session.0.resume_token.clone();
        session = Ws::connect(alice.url(0), resuming(&alice, token))
            .await
            .unwrap();
        assert!(session.0.resumed);
    }
    let took = begin.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "of five seconds at the others' rate: {took:?}"
    );
    // Whose token resumed nothing lately is let in with those that begin.
    drop(
        Ws::connect(mallory.url(0), made_up(&mallory))
            .await
            .unwrap(),
    );
    let begin = Instant::now();
    let behind = Ws::connect(mallory.url(0), made_up(&mallory)).await;
    if let Err(WsError::Rejected { error, .. }) = &behind {
        assert_eq!(error.code, Code::Overloaded);
    }
    let waited = begin.elapsed();
    assert!(
        behind.is_err() || waited > Duration::from_secs(1),
        "{waited:?}"
    );

    let (mut open, mut delays) = (Vec::new(), Vec::new());
    while let Some(outcome) = tasks.join_next().await {
        match outcome.unwrap() {
            Ok(opened) => open.push(opened),
            Err(WsError::Rejected { error, closed }) => {
                assert_eq!((error.code, closed.code), (Code::Overloaded, Some(1013)));
                delays.push(error.retry_after_ms.unwrap());
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(open.len() >= 3, "three seconds of waiting");
    assert!(delays.len() >= 8, "{} came in", open.len());
    let (first, last) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*first >= 2000 && last - first >= 2000, "spread: {delays:?}");

    tokio::time::sleep(Duration::from_millis(*first)).await;
    let again = Ws::connect(alice.url(0), Options::bearer(&alice.token)).await;
    drop((open, session, behind, again.unwrap()));
    cluster.end().await;
}
