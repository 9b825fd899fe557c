//! A server of a test's own, which says what the test wants.

use confab_protocol::event::{Event, EventType};
use confab_protocol::frame::{Ack, ClientFrame, ServerFrame, Welcome, WelcomeLimits};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, SessionId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use confab_protocol::wire;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use uuid::Uuid;

use crate::Encoding;

/// The server's side of the connection.
pub(crate) struct TestGateway {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl TestGateway {
    pub(crate) async fn accept(listener: &TcpListener, encoding: Encoding) -> Self {
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

    pub(crate) async fn hears(&mut self) -> ClientFrame {
        let message = self.socket.next().await.unwrap().unwrap();
        let json = match self.encoding {
            Encoding::Json => message.into_data().to_vec(),
            Encoding::MsgPack => wire::json_of_msgpack(&message.into_data()).unwrap(),
        };
        ClientFrame::decode(&json).unwrap()
    }

    pub(crate) async fn says(&mut self, json: String) {
        let message = match self.encoding {
            Encoding::Json => Message::text(json),
            Encoding::MsgPack => Message::binary(wire::msgpack_of_json(json.as_bytes()).unwrap()),
        };
        self.socket.send(message).await.unwrap();
    }

    /// Takes the hello and welcomes a fresh session.
    pub(crate) async fn welcomes(&mut self) -> ClientFrame {
        self.welcomes_with(|_| {}).await
    }

    /// Takes the hello and welcomes as `change` has it.
    pub(crate) async fn welcomes_with(&mut self, change: impl FnOnce(&mut Welcome)) -> ClientFrame {
        let hello = self.hears().await;
        let mut welcome = Welcome {
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
        };
        change(&mut welcome);
        self.says(ServerFrame::Welcome(Box::new(welcome)).encode().unwrap())
            .await;
        hello
    }

    pub(crate) async fn pings(&mut self) {
        let ping = Message::Ping(Vec::new().into());
        self.socket.send(ping).await.unwrap();
    }

    /// Returns true if the client lets the connection go.
    pub(crate) async fn ends(&mut self) -> bool {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let limit = std::time::Duration::from_secs(5);
        tokio::time::timeout(limit, end).await.is_ok()
    }

    pub(crate) async fn closes(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "over".into(),
        };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

pub(crate) fn body(words: &str) -> MessageBody {
    MessageBody {
        kind: "text".into(),
        content: Some(JsonText::of(&words).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    }
}

pub(crate) fn ack(id: ClientId, conversation: ConversationId, seq: Seq) -> String {
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

pub(crate) fn event(conversation: ConversationId, seq: Seq) -> String {
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

pub(crate) fn conversation() -> ConversationId {
    ConversationId(Uuid::now_v7())
}
