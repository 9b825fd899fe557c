//! A session against a server of the test's own, which says what the test wants.

use confab_protocol::error::{Code, Failure};
use confab_protocol::event::{Event, EventType};
use confab_protocol::frame::{GoawayReason, ServerFrame, WelcomeLimits};
use confab_protocol::ids::{EventId, Seq, SessionId};
use confab_protocol::json::JsonText;
use confab_protocol::wire;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::{Encoding, TokenIn};

/// The server's side of the connection.
struct Server {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Server {
    async fn accept(listener: &TcpListener, encoding: Encoding) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let name = match encoding {
            Encoding::Json => "confab.v1.json",
            Encoding::MsgPack => "confab.v1.msgpack",
        };
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let agree =
            |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                let offered = &request.headers()["sec-websocket-protocol"];
                assert_eq!(offered, name);
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", offered.clone());
                Ok(response)
            };
        let socket = tokio_tungstenite::accept_hdr_async(stream, agree)
            .await
            .unwrap();
        Self { socket, encoding }
    }

    async fn hears(&mut self) -> ClientFrame {
        let message = self.socket.next().await.unwrap().unwrap();
        let json = match self.encoding {
            Encoding::Json => message.into_data().to_vec(),
            Encoding::MsgPack => wire::json_of_msgpack(&message.into_data()).unwrap(),
        };
        ClientFrame::decode(&json).unwrap()
    }

    async fn says(&mut self, json: String) {
        let message = match self.encoding {
            Encoding::Json => Message::text(json),
            Encoding::MsgPack => Message::binary(wire::msgpack_of_json(json.as_bytes()).unwrap()),
        };
        self.socket.send(message).await.unwrap();
    }

    async fn welcomes(&mut self) -> ClientFrame {
        let hello = self.hears().await;
        let welcome = ServerFrame::Welcome(Box::new(Welcome {
            id: None,
            session_id: SessionId(Uuid::now_v7()),
            user_id: "alice".parse().unwrap(),
            resumed: false,
            reason: None,
            replayed: 0,
            truncated: vec![],
            heads: None,
            resume_token: None,
            resume_window_seconds: 0,
            heartbeat_seconds: 25,
            limits: WelcomeLimits::default(),
        }));
        self.says(welcome.encode().unwrap()).await;
        hello
    }

    async fn closes(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "over".into(),
        };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn open(encoding: Encoding) -> (Server, Session, Events) {
    let (listener, url) = listen().await;
    let options = Options {
        token: TokenIn::Hello("secret".into()),
        encoding,
        ..Options::default()
    };
    let serve = async {
        let mut server = Server::accept(&listener, encoding).await;
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

fn body(words: &str) -> MessageBody {
    MessageBody {
        kind: "text".into(),
        content: Some(JsonText::of(&words).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    }
}

fn ack(id: ClientId, conversation: ConversationId, seq: Seq) -> String {
    let ack = Ack {
        id: Some(id.to_string()),
        conversation_id: Some(conversation),
        message_id: Some(EventId(Uuid::now_v7())),
        seq: Some(seq),
        created_at: "2026-11-23T10:20:30.123Z".parse().ok(),
        duplicate: false,
    };
    ServerFrame::Ack(ack).encode().unwrap()
}

fn event(conversation: ConversationId, seq: Seq) -> String {
    let event = Event {
        r#type: EventType::ConversationUpdated,
        conversation_id: conversation,
        seq,
        id: EventId(Uuid::now_v7()),
        actor: "bob".parse().unwrap(),
        created_at: "2026-11-23T10:20:30.123Z".parse().unwrap(),
        data: JsonText::empty_object(),
    };
    serde_json::to_string(&event).unwrap()
}

fn conversation() -> ConversationId {
    ConversationId(Uuid::now_v7())
}

#[tokio::test]
async fn sends_go_out_in_order_and_each_gets_its_own_answer_in_whatever_order_they_come() {
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
            sends.push(send.id);
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
async fn an_event_heard_twice_is_told_once_and_other_conversations_are_their_own() {
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
async fn when_the_connection_ends_everyone_who_waits_is_told_how() {
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
async fn bye_ends_the_session_and_tells_how_the_gateway_closed() {
    let (mut server, session, _events) = open(Encoding::Json).await;
    let serve = async {
        assert_eq!(server.hears().await, ClientFrame::Bye(Plain::default()));
        server.closes(1000).await;
    };
    let (closed, ()) = tokio::join!(session.bye(), serve);
    assert_eq!(closed.unwrap().code, Some(1000));
}

#[tokio::test]
async fn a_refused_hello_is_told_with_its_code_and_close() {
    let (listener, url) = listen().await;
    let serve = async {
        let mut server = Server::accept(&listener, Encoding::Json).await;
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
