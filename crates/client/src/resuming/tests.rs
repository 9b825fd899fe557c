//! A session that goes on by itself, against gateways of the test's own, which say what the test wants.

use confab_protocol::frame::{
    Goaway, GoawayReason, Hello, ResumeToken, Seen, ServerFrame, Truncated, Welcome,
};
use tokio::net::TcpListener;

use super::*;
use crate::Encoding;
use crate::testing::{TestGateway, conversation, event, listen};

mod ends;
mod sending;

/// Gateways of a test, and what a client says to them.
struct Gateways {
    listeners: Vec<TcpListener>,
    urls: Vec<String>,
}

impl Gateways {
    async fn new(many: usize) -> Self {
        let (mut listeners, mut urls) = (Vec::new(), Vec::new());
        for _ in 0..many {
            let (listener, url) = listen().await;
            listeners.push(listener);
            urls.push(url);
        }
        Self { listeners, urls }
    }

    fn options(&self) -> ResumeOptions {
        ResumeOptions {
            min_backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(20),
            opening: Duration::from_secs(5),
            ..ResumeOptions::new(self.urls.clone(), "secret")
        }
    }

    async fn accept(&self, gateway: usize) -> TestGateway {
        TestGateway::accept(&self.listeners[gateway], Encoding::Json).await
    }

    /// A session that stands at the first gateway.
    async fn open(&self, options: ResumeOptions) -> (TestGateway, Resuming, Changes) {
        let serve = async {
            let mut server = self.accept(0).await;
            server.welcomes_with(with_token("first")).await;
            server
        };
        let (server, opened) = tokio::join!(serve, Resuming::open(options));
        let (resuming, mut changes) = opened.unwrap();
        let connected = changes.next().await;
        assert!(
            matches!(connected, Some(Change::Connected { resumed: false, .. })),
            "{connected:?}"
        );
        (server, resuming, changes)
    }

    /// The next connection at a gateway, resumed.
    async fn resumes(&self, gateway: usize) -> (TestGateway, Hello) {
        let mut server = self.accept(gateway).await;
        let hello = server.welcomes_with(resumed).await;
        (server, hello_of(hello))
    }
}

fn with_token(token: &'static str) -> impl FnOnce(&mut Welcome) {
    move |welcome| welcome.resume_token = Some(token.to_owned())
}

fn resumed(welcome: &mut Welcome) {
    welcome.resumed = true;
    welcome.resume_token = Some("next".to_owned());
}

fn hello_of(frame: ClientFrame) -> Hello {
    match frame {
        ClientFrame::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn said(frame: ServerFrame) -> String {
    frame.encode().unwrap()
}

async fn told(changes: &mut Changes) -> Change {
    tokio::time::timeout(Duration::from_secs(5), changes.next())
        .await
        .expect("something in time")
        .expect("something")
}

/// The next change that is an event.
async fn heard(changes: &mut Changes) -> (ConversationId, Seq) {
    loop {
        if let Change::Event(event) = told(changes).await {
            return (event.conversation_id, event.seq);
        }
    }
}

async fn closed(changes: &mut Changes) -> Closed {
    loop {
        if let Change::Closed(closed) = told(changes).await {
            assert_eq!(changes.next().await, None);
            return closed;
        }
    }
}

#[tokio::test]
async fn lost_connection_resumes_elsewhere_without_duplicates() {
    let gateways = Gateways::new(2).await;
    let (mut server, resuming, mut changes) = gateways.open(gateways.options()).await;
    let here = conversation();
    for seq in [1, 2] {
        server.says(event(here, seq)).await;
        assert_eq!(heard(&mut changes).await, (here, seq));
    }
    drop(server);

    let (mut server, hello) = gateways.resumes(1).await;
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
    assert_eq!(hello.seen, Some(BTreeMap::from([(here, 2)])));
    assert!(matches!(told(&mut changes).await, Change::Disconnected(_)));
    assert!(matches!(
        told(&mut changes).await,
        Change::Connected { resumed: true, url, .. } if url == gateways.urls[1]
    ));
    for seq in [1, 2, 3] {
        server.says(event(here, seq)).await;
    }
    assert_eq!(heard(&mut changes).await, (here, 3));
    assert_eq!((resuming.reconnects(), resuming.ignored()), (1, 2));

    let token = ResumeToken {
        resume_token: "later".to_owned(),
    };
    server.says(said(ServerFrame::ResumeToken(token))).await;
    server.says(event(here, 4)).await;
    heard(&mut changes).await;
    drop(server);
    let (_server, hello) = gateways.resumes(0).await;
    assert_eq!(hello.resume_token.as_deref(), Some("later"));
}

#[tokio::test]
async fn truncated_range_is_held_once_program_read_it() {
    let gateways = Gateways::new(1).await;
    let here = conversation();
    let mut options = gateways.options();
    options.seen = BTreeMap::from([(here, 10)]);
    let range = Truncated {
        conversation_id: here,
        from_seq: 11,
        head_seq: 90,
        reset: None,
    };
    let serve = async {
        let mut server = gateways.accept(0).await;
        let hello = server
            .welcomes_with(|welcome| welcome.truncated.push(range.clone()))
            .await;
        assert_eq!(hello_of(hello).seen, Some(BTreeMap::from([(here, 10)])));
        server
    };
    let (mut server, opened) = tokio::join!(serve, Resuming::open(options));
    let (resuming, mut changes) = opened.unwrap();
    assert!(matches!(told(&mut changes).await, Change::Connected { .. }));
    assert_eq!(told(&mut changes).await, Change::Truncated(range));
    server.says(event(here, 91)).await;
    assert_eq!(heard(&mut changes).await, (here, 91));
    drop(server);

    let (mut server, hello) = gateways.resumes(0).await;
    assert_eq!(hello.seen, Some(BTreeMap::from([(here, 10)])));
    resuming.seen(BTreeMap::from([(here, 90)])).await;
    let ClientFrame::Seen(Seen { positions, .. }) = server.hears().await else {
        panic!("not seen")
    };
    assert_eq!(positions, BTreeMap::from([(here, 91)]));

    let reset = Truncated {
        conversation_id: here,
        from_seq: 1,
        head_seq: 5,
        reset: Some(true),
    };
    server
        .says(said(ServerFrame::Truncated(reset.clone())))
        .await;
    server.says(event(here, 6)).await;
    loop {
        match told(&mut changes).await {
            Change::Truncated(range) => assert_eq!(range, reset),
            Change::Event(event) => break assert_eq!(event.seq, 6),
            _ => {}
        }
    }
}

#[tokio::test]
async fn received_positions_are_sent_once_and_batched() {
    let gateways = Gateways::new(1).await;
    let (mut server, _resuming, mut changes) = gateways.open(gateways.options()).await;
    let (here, there) = (conversation(), conversation());
    let began = tokio::time::Instant::now();
    for (place, seq) in [(here, 1), (here, 2), (there, 7)] {
        server.says(event(place, seq)).await;
        heard(&mut changes).await;
    }
    let ClientFrame::Seen(Seen { positions, .. }) = server.hears().await else {
        panic!("not seen")
    };
    assert_eq!(positions, BTreeMap::from([(here, 2), (there, 7)]));
    assert!(began.elapsed() >= Duration::from_secs(4));
}

#[tokio::test]
async fn session_without_seen_resumes_by_token_alone() {
    let gateways = Gateways::new(1).await;
    let mut options = gateways.options();
    options.says_seen = false;
    let (mut server, resuming, mut changes) = gateways.open(options).await;
    let here = conversation();
    server.says(event(here, 7)).await;
    heard(&mut changes).await;
    drop(server);
    let (mut server, hello) = gateways.resumes(0).await;
    assert_eq!((hello.seen, hello.seen_follows), (None, None));
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
    for seq in [7, 8] {
        server.says(event(here, seq)).await;
    }
    assert_eq!(heard(&mut changes).await, (here, 8));
    assert_eq!(resuming.ignored(), 1);
}

#[tokio::test]
async fn refusing_gateways_are_tried_until_one_welcomes() {
    let gateways = Gateways::new(3).await;
    let (server, _resuming, mut changes) = gateways.open(gateways.options()).await;
    drop(server);
    for gateway in [1, 2, 0, 1] {
        let (refused, _) = gateways.listeners[gateway].accept().await.unwrap();
        drop(refused);
    }
    let (_server, hello) = gateways.resumes(2).await;
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
    let mut failures = 0;
    while let Change::Disconnected(_) = told(&mut changes).await {
        failures += 1;
    }
    assert_eq!(failures, 5);
}

#[tokio::test]
async fn draining_gateway_is_left_after_its_delay() {
    let gateways = Gateways::new(2).await;
    let (mut server, _resuming, mut changes) = gateways.open(gateways.options()).await;
    let goaway = Goaway {
        reason: GoawayReason::Drain,
        reconnect_after_ms: 300,
    };
    let began = tokio::time::Instant::now();
    server.says(said(ServerFrame::Goaway(goaway.clone()))).await;
    server.closes(1001).await;
    let (_server, hello) = gateways.resumes(1).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
    assert_eq!(told(&mut changes).await, Change::Goaway(goaway));
    assert!(matches!(
        told(&mut changes).await,
        Change::Disconnected(Closed {
            code: Some(1001),
            ..
        })
    ));
    assert!(matches!(told(&mut changes).await, Change::Connected { .. }));
}

#[tokio::test]
async fn a_degraded_gateway_is_kept_until_another_welcomes() {
    let gateways = Gateways::new(2).await;
    let (mut old, resuming, mut changes) = gateways.open(gateways.options()).await;
    let here = conversation();
    let goaway = Goaway {
        reason: GoawayReason::Degraded,
        reconnect_after_ms: 1,
    };
    old.says(said(ServerFrame::Goaway(goaway.clone()))).await;
    assert_eq!(told(&mut changes).await, Change::Goaway(goaway));
    let mut new = gateways.accept(1).await;
    old.says(event(here, 1)).await;
    assert_eq!(heard(&mut changes).await, (here, 1));
    let hello = hello_of(new.welcomes_with(resumed).await);
    assert_eq!(hello.resume_token.as_deref(), Some("first"));
    assert!(matches!(
        told(&mut changes).await,
        Change::Connected { resumed: true, .. }
    ));
    assert!(old.ends().await, "the old one is let go");
    for seq in [1, 2] {
        new.says(event(here, seq)).await;
    }
    assert_eq!(heard(&mut changes).await, (here, 2));
    assert_eq!(resuming.reconnects(), 1);
}

#[tokio::test]
async fn fence_by_own_reconnect_does_not_end_session() {
    let gateways = Gateways::new(2).await;
    let (mut old, _resuming, mut changes) = gateways.open(gateways.options()).await;
    let goaway = Goaway {
        reason: GoawayReason::Degraded,
        reconnect_after_ms: 1,
    };
    old.says(said(ServerFrame::Goaway(goaway))).await;
    let mut new = gateways.accept(1).await;
    old.closes(4409).await;
    new.welcomes_with(resumed).await;
    let wanted = |change: &Change| matches!(change, Change::Connected { resumed: true, .. });
    while !wanted(&told(&mut changes).await) {}
}
