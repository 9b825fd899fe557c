//! A hand-written WebSocket that records frames before any client library sees them.

use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::frame::{ClientFrame, ErrorFrame, Heard, Hello, ServerFrame, Welcome};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};

/// How long a gateway may take until its welcome, and a socket to take a frame.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection, or none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A close frame.
    Closed(u16, String),
    /// Without one.
    Broken(String),
    /// Refused before the welcome, with when to come again.
    Refused(Code, Option<u64>),
}

impl End {
    fn broken(error: &impl ToString) -> Self {
        Self::Broken(error.to_string())
    }
}

pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Connects to the gateway at `url` and waits for the welcome. `buffer` is what the kernel takes for a client that does not
    /// read, in bytes.
    pub(crate) async fn open(
        url: &str,
        token: &str,
        hello: Hello,
        buffer: Option<u32>,
    ) -> Result<(Box<Welcome>, Self), End> {
        let opened = Box::pin(Self::greet(url, token, hello, buffer));
        let opened = timeout(SOCKET_TIMEOUT, opened).await;
        opened.unwrap_or_else(|late| Err(End::broken(&late)))
    }

    async fn greet(
        url: &str,
        token: &str,
        hello: Hello,
        buffer: Option<u32>,
    ) -> Result<(Box<Welcome>, Self), End> {
        let address = url.strip_prefix("http://").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(buffer) = buffer {
            socket.set_recv_buffer_size(buffer).unwrap();
        }
        let connected = socket.connect(address.parse().unwrap()).await;
        let stream = connected.map_err(|error| End::broken(&error))?;
        stream.set_nodelay(true).unwrap();
        let request = ClientRequestBuilder::new(format!("ws://{address}/v1/ws").parse().unwrap())
            .with_sub_protocol("confab.v1.json")
            .with_header("Authorization", format!("Bearer {token}"))
            .into_client_request()
            .unwrap();
        let upgraded = tokio_tungstenite::client_async(request, stream).await;
        let (stream, _) = upgraded.map_err(|error| End::broken(&error))?;
        let mut socket = Self { stream };
        socket.send(&ClientFrame::Hello(hello)).await?;
        loop {
            match socket.next().await? {
                None => {}
                Some(Heard::Frame(ServerFrame::Welcome(welcome))) => {
                    return Ok((welcome, socket));
                }
                Some(Heard::Frame(ServerFrame::Error(error))) => {
                    return Err(refusal(&error));
                }
                Some(other) => return Err(End::Broken(format!("before the welcome: {other:?}"))),
            }
        }
    }

    /// The next frame; nothing at a ping. Dropping the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, End> {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Heard::decode(text.as_bytes())
                .map(Some)
                .map_err(|error| End::broken(&error)),
            Some(Ok(Message::Close(frame))) => Err(frame.map_or_else(
                || End::Broken("a close without a code".to_owned()),
                |frame| End::Closed(frame.code.into(), frame.reason.to_string()),
            )),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(End::broken(&error)),
            None => Err(End::Broken("it ended".to_owned())),
        }
    }

    /// Reads on without looking at what comes, until the connection ends.
    pub(crate) async fn drain(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    pub(crate) async fn send(&mut self, frame: &ClientFrame) -> Result<(), End> {
        let text = Message::text(frame.encode().unwrap());
        match timeout(SOCKET_TIMEOUT, self.stream.send(text)).await {
            Ok(sent) => sent.map_err(|error| End::broken(&error)),
            Err(late) => Err(End::broken(&late)),
        }
    }
}

fn refusal(error: &ErrorFrame) -> End {
    End::Refused(error.code, error.retry_after_ms)
}
