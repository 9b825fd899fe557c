//! A session against a server of the test's own, which says what the test wants.

use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{GoawayReason, ServerFrame};
use uuid::Uuid;

use super::*;
use crate::testing::{TestGateway, ack, body, conversation, event, listen};
use crate::{Encoding, TokenIn};

async fn open(encoding: Encoding) -> (TestGateway, Session, Events) {
    let (listener, url) = listen().await;
    let options = Options {
        token: TokenIn::Hello("secret".into()),
        encoding,
        ..Options::default()
    };
    let serve = async {
        let mut server = TestGateway::accept(&listener, encoding).await;
        (server.welcomes().await, server)
    };
    let ((hello, server), opened) = tokio::join!(serve, Session::open(&url, options));
    let ClientFrame::Hello(hello) = hello else {
        panic!("{hello:?}")
    };
    assert_eq!(hello.token.as_deref(), Some("secret"));
    let (session, events) = opened.unwrap();
    (server, session, events)
}

#[tokio::test]
async fn sends_keep_order_and_match_answers_by_id() {
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let (mut server, session, _events) = open(encoding).await;
        let here = conversation();
        let mut pending = Vec::new();
        for words in ["one", "two", "three"] {
            let id = ClientId(Uuid::now_v7());
            pending.push(session.submit(id, here, body(words)).await.unwrap());
        }
        let mut sends = Vec::new();
        for words in ["one", "two", "three"] {
            let ClientFrame::Send(send) = server.hears().await else {
                panic!("not a send")
            };
            assert_eq!(send.body, body(words));
            sends.push(send.id.key());
        }
        let refusal = Failure::of(Code::ConversationNotFound);
        let refusal = ErrorFrame::new(Some(sends[1].to_string()), refusal, "r".into());
        server.says(ack(sends[2], here, 3)).await;
        server
            .says(ServerFrame::Error(refusal).encode().unwrap())
            .await;
        server.says(ack(sends[0], here, 1)).await;

        let mut answers = Vec::new();
        for pending in pending {
            answers.push(pending.ack().await);
        }
        assert_eq!(answers[0].as_ref().unwrap().seq, 1);
        assert!(
            matches!(&answers[1], Err(SendError::Refused(error)) if error.code == Code::ConversationNotFound)
        );
        assert_eq!(answers[2].as_ref().unwrap().seq, 3);
    }
}

#[tokio::test]
async fn repeated_event_is_delivered_once_per_conversation() {
    let (mut server, session, mut events) = open(Encoding::Json).await;
    let (here, there) = (conversation(), conversation());
    for (place, seq) in [
        (here, 1),
        (here, 2),
        (here, 1),
        (here, 2),
        (there, 1),
        (here, 3),
    ] {
        server.says(event(place, seq)).await;
    }
    let mut told = Vec::new();
    while told.len() < 4 {
        match events.next().await {
            Some(Notice::Event(event)) => told.push((event.conversation_id, event.seq)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [(here, 1), (here, 2), (there, 1), (here, 3)]);
    assert_eq!(session.ignored(), 2);
}

#[tokio::test]
async fn connection_end_answers_all_waiters() {
    let (mut server, session, mut events) = open(Encoding::Json).await;
    let here = conversation();
    let id = ClientId(Uuid::now_v7());
    let pending = session.submit(id, here, body("lost?")).await.unwrap();
    server.hears().await;
    let goaway = Goaway {
        reason: GoawayReason::Drain,
        reconnect_after_ms: 5,
    };
    server
        .says(ServerFrame::Goaway(goaway.clone()).encode().unwrap())
        .await;
    server.closes(4440).await;

    let closed = Closed {
        code: Some(4440),
        reason: "over".into(),
    };
    assert_eq!(pending.ack().await, Err(SendError::Closed(closed.clone())));
    assert_eq!(events.next().await, Some(Notice::Goaway(goaway)));
    assert_eq!(events.next().await, Some(Notice::Closed(closed.clone())));
    assert_eq!(events.next().await, None);
    assert_eq!(session.is_closed(), Some(closed.clone()));
    let late = session.send(here, body("too late")).await;
    assert_eq!(late, Err(SendError::Closed(closed)));
}

#[tokio::test]
async fn bye_ends_session_and_returns_close_code() {
    let (mut server, session, _events) = open(Encoding::Json).await;
    let serve = async {
        assert_eq!(server.hears().await, ClientFrame::Bye(Plain::default()));
        server.closes(1000).await;
    };
    let (closed, ()) = tokio::join!(session.bye(), serve);
    assert_eq!(closed.unwrap().code, Some(1000));
}

#[tokio::test]
async fn refused_hello_returns_code_and_close() {
    let (listener, url) = listen().await;
    let serve = async {
        let mut server = TestGateway::accept(&listener, Encoding::Json).await;
        server.hears().await;
        let error = ErrorFrame::new(None, Failure::of(Code::TokenExpired), "r".into());
        server
            .says(ServerFrame::Error(error).encode().unwrap())
            .await;
        server.closes(4401).await;
    };
    let (opened, ()) = tokio::join!(Session::open(&url, Options::default()), serve);
    match opened {
        Err(WsError::Rejected { error, closed }) => {
            assert_eq!((error.code, closed.code), (Code::TokenExpired, Some(4401)));
        }
        other => panic!("{other:?}"),
    }
}
