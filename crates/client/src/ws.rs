use std::time::Duration;

use confab_protocol::frame::{ClientFrame, ErrorFrame, Heard, Hello, ServerFrame, Welcome};
use confab_protocol::wire;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tungstenite::Message;

mod hello;
mod upgrade;

use crate::Problem;

/// Time that a server that has said goodbye may take to end the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The encoding of frames: the subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `confab.v1.json`.
    #[default]
    Json,
    /// `confab.v1.msgpack`.
    MsgPack,
}

impl Encoding {
    const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "confab.v1.json",
            Self::MsgPack => "confab.v1.msgpack",
        }
    }

    fn message(self, json: String) -> Result<Message, WsError> {
        Ok(match self {
            Self::Json => Message::text(json),
            Self::MsgPack => Message::binary(wire::msgpack_of_json(json.as_bytes())?),
        })
    }
}

/// The place of the token in the handshake.
#[derive(Clone, Default)]
pub enum TokenIn {
    /// Into the upgrade's `Authorization` header.
    Header(String),
    /// Into hello, as browsers must.
    Hello(String),
    /// Nowhere.
    #[default]
    Nowhere,
}

impl std::fmt::Debug for TokenIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header(_) => "Header",
            Self::Hello(_) => "Hello",
            Self::Nowhere => "Nowhere",
        })
    }
}

/// The options that a WebSocket is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who is calling.
    pub token: TokenIn,
    /// The subprotocol.
    pub encoding: Encoding,
    /// The other fields of hello. A `seen` that does not fit goes in the frame behind it.
    pub hello: Hello,
    /// The `Origin` header, where one is sent.
    pub origin: Option<String>,
    /// How long it may take until the welcome.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: TokenIn::Nowhere,
            encoding: Encoding::Json,
            hello: Hello::default(),
            origin: None,
            timeout: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// With the token in the header, else as usual.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self {
            token: TokenIn::Header(token.to_owned()),
            ..Self::default()
        }
    }
}

/// The end of a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("closed: {} {reason}", code.map_or_else(|| "no code".to_owned(), |code| code.to_string()))]
pub struct Closed {
    /// The close code; none when the connection broke without a close frame, or with one that has none.
    pub code: Option<u16>,
    /// The close frame's reason, or what broke.
    pub reason: String,
}

/// Why a WebSocket could not be opened, or a frame not be written.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// The upgrade was refused.
    #[error("refused")]
    Refused(#[source] Box<Problem>),
    /// The hello was refused, and this is how the socket ended.
    #[error("hello was refused: {}: {}", error.code, error.detail)]
    Rejected {
        /// What was answered.
        error: Box<ErrorFrame>,
        /// How the socket ended after it.
        closed: Closed,
    },
    /// The socket ended before the welcome.
    #[error("no welcome")]
    Closed(#[from] Closed),
    /// No connection, or no upgrade by the rules of RFC 6455.
    #[error("no connection")]
    Transport(#[source] Box<tungstenite::Error>),
    /// No welcome in time.
    #[error("no welcome within {0:?}")]
    Timeout(Duration),
    /// Something else came before the welcome.
    #[error("not a welcome: {0:?}")]
    NotAWelcome(Box<Heard>),
    /// The URL or the token has no form in HTTP.
    #[error("not a valid {0}")]
    Invalid(
        &'static str,
        #[source] Box<dyn std::error::Error + Send + Sync>,
    ),
    /// A frame has no form in the subprotocol.
    #[error("cannot encode the frame")]
    Encode(#[from] wire::WireError),
}

impl From<tungstenite::Error> for WsError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Transport(Box::new(error))
    }
}

impl From<serde_json::Error> for WsError {
    fn from(error: serde_json::Error) -> Self {
        Self::Encode(error.into())
    }
}

/// One WebSocket after its welcome. Pings are answered while it is read.
#[derive(Debug)]
pub struct Ws {
    sender: WsSender,
    receiver: WsReceiver,
}

impl Ws {
    /// Connects to the gateway at `url` (`http://…`, `https://…`), says hello and waits for the welcome.
    ///
    /// # Errors
    /// [`WsError::Refused`] or [`WsError::Rejected`] when the service says no, else what went wrong on the way.
    pub async fn connect(url: &str, options: Options) -> Result<(Welcome, Self), WsError> {
        let timeout = options.timeout;
        tokio::time::timeout(timeout, Box::pin(Self::open(url, options)))
            .await
            .unwrap_or(Err(WsError::Timeout(timeout)))
    }

    async fn open(url: &str, options: Options) -> Result<(Welcome, Self), WsError> {
        let stream = upgrade::upgrade(url, &options).await?;
        let (sink, stream) = stream.split();
        let encoding = options.encoding;
        let mut ws = Self {
            sender: WsSender { sink, encoding },
            receiver: WsReceiver {
                stream,
                closed: None,
                last_heard: Instant::now(),
            },
        };
        for frame in hello::opening(options.hello, options.token)? {
            ws.sender.feed_frame(&frame).await?;
        }
        ws.sender.flush().await?;
        match ws.next().await? {
            Heard::Frame(ServerFrame::Welcome(welcome)) => Ok((*welcome, ws)),
            Heard::Frame(ServerFrame::Error(error)) => Err(WsError::Rejected {
                error: Box::new(error),
                closed: ws.receiver.closed().await,
            }),
            other => Err(WsError::NotAWelcome(Box::new(other))),
        }
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send_frame(&mut self, frame: &ClientFrame) -> Result<(), WsError> {
        self.sender.send_frame(frame).await
    }

    /// Waits for the next frame or event. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn next(&mut self) -> Result<Heard, Closed> {
        self.receiver.next().await
    }

    /// Reading and writing apart, for two tasks.
    #[must_use]
    pub fn split(self) -> (WsSender, WsReceiver) {
        (self.sender, self.receiver)
    }
}

/// The writing half.
#[derive(Debug)]
pub struct WsSender {
    sink: SplitSink<Stream, Message>,
    encoding: Encoding,
}

impl WsSender {
    /// Writes a frame.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send_frame(&mut self, frame: &ClientFrame) -> Result<(), WsError> {
        self.feed_frame(frame).await?;
        self.flush().await
    }

    /// Puts a frame into the buffer, to be written with what follows or by [`Self::flush`].
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn feed_frame(&mut self, frame: &ClientFrame) -> Result<(), WsError> {
        let message = self.encoding.message(frame.encode()?)?;
        Ok(self.sink.feed(message).await?)
    }

    /// Writes what is in the buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> Result<(), WsError> {
        Ok(self.sink.flush().await?)
    }
}

/// The reading half.
#[derive(Debug)]
pub struct WsReceiver {
    stream: SplitStream<Stream>,
    closed: Option<Closed>,
    last_heard: Instant,
}

impl WsReceiver {
    /// Waits for the next frame or event. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn next(&mut self) -> Result<Heard, Closed> {
        loop {
            if let Some(closed) = &self.closed {
                return Err(closed.clone());
            }
            let message = self.stream.next().await;
            self.last_heard = Instant::now();
            match read(message) {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(closed) => {
                    self.closed = Some(closed);
                    self.answer_close().await;
                }
            }
        }
    }

    /// When something came last, be it a ping.
    #[must_use]
    pub const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Reading on writes the answer to a close frame, and lets the server end the connection first.
    async fn answer_close(&mut self) {
        let rest = async { while matches!(self.stream.next().await, Some(Ok(_))) {} };
        // What does not end in time is ended by dropping it.
        let _late = tokio::time::timeout(CLOSE_TIMEOUT, rest).await.is_err();
    }

    /// Reads to the end, whatever comes.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }
}

/// Returns what a message says; nothing where it is the library's to answer.
fn read(message: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Heard>, Closed> {
    let broken = |reason: String| Closed { code: None, reason };
    let heard = match message {
        Some(Ok(Message::Text(text))) => Heard::decode(text.as_bytes()),
        Some(Ok(Message::Binary(bytes))) => {
            let json = wire::json_of_msgpack(&bytes).map_err(|error| broken(error.to_string()))?;
            Heard::decode(&json)
        }
        Some(Ok(Message::Close(frame))) => {
            return Err(Closed {
                code: frame.as_ref().map(|frame| frame.code.into()),
                reason: frame.map_or_else(String::new, |frame| frame.reason.to_string()),
            });
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(None),
        Some(Err(error)) => return Err(broken(error.to_string())),
        None => return Err(broken("the connection ended".to_owned())),
    };
    heard
        .map(Some)
        .map_err(|error| broken(format!("neither a frame nor an event: {error}")))
}
