//! One WebSocket of the load: what comes is handed on unparsed, so that the load costs little.

use bytes::Bytes;
use confab_protocol::frame::{ClientFrame, Heard, Hello, ServerFrame, Welcome};
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket, WebSocketRead, WebSocketWrite};
use http_body_util::Empty;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};
use url::Url;

use crate::Error;

/// How long it may take until the welcome.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that may wait for one socket of the load.
const SEND_QUEUE_FRAMES: usize = 1024;

/// What is done with each message that comes: a text frame's payload.
pub(crate) type Hearing = Box<dyn FnMut(&[u8]) + Send>;

/// An open WebSocket, read by a task of its own, which answers pings.
#[derive(Debug)]
pub(crate) struct Connection {
    outgoing: mpsc::Sender<Outgoing>,
    // Both end with the connection: its socket closes without a word, as a client's that vanishes.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
enum Outgoing {
    Text(Bytes),
    Pong(Vec<u8>),
}

impl Connection {
    /// Connects as confab's clients do, says hello and waits for the welcome; `hearing` is given all that comes behind it.
    pub(crate) async fn open(
        url: &str,
        token: &str,
        hello: Hello,
        mut hearing: Hearing,
    ) -> Result<(Welcome, Self), Error> {
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        let first = Box::new(move |payload: &[u8]| match tell.take() {
            Some(tell) => drop(tell.send(welcome(payload))),
            None => hearing(payload),
        });
        let connection = Self::unwelcomed(&format!("{url}/v1/ws"), token, first).await?;
        let hello = serde_json::to_vec(&ClientFrame::Hello(hello))?;
        connection.send(hello.into()).await?;
        match timeout(OPEN_TIMEOUT, told).await {
            Ok(Ok(welcome)) => Ok((welcome?, connection)),
            Ok(Err(_gone)) => Err(Error::Socket("it ended before the welcome".to_owned())),
            Err(_late) => Err(Error::Timeout {
                what: "a welcome".to_owned(),
                within: OPEN_TIMEOUT,
            }),
        }
    }

    /// Connects to any WebSocket server; `hearing` is given all that comes.
    pub(crate) async fn unwelcomed(
        url: &str,
        token: &str,
        hearing: Hearing,
    ) -> Result<Self, Error> {
        let stream = timeout(OPEN_TIMEOUT, Box::pin(upgrade(url, token)));
        let stream = stream.await.map_err(|_late| Error::Timeout {
            what: "an upgrade".to_owned(),
            within: OPEN_TIMEOUT,
        })??;
        let mut socket = WebSocket::after_handshake(stream, Role::Client);
        socket.set_auto_pong(false);
        socket.set_auto_close(false);
        let (reader, writer) = socket.split(TcpStream::into_split);
        let (outgoing, queue) = mpsc::channel(SEND_QUEUE_FRAMES);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(writer, queue));
        tasks.spawn(read(reader, hearing, outgoing.clone()));
        Ok(Self {
            outgoing,
            _tasks: tasks,
        })
    }

    /// Sends a text frame; waits while as many as may wait do.
    pub(crate) async fn send(&self, text: Bytes) -> Result<(), Error> {
        let sent = self.outgoing.send(Outgoing::Text(text)).await;
        sent.map_err(|_closed| Error::Socket("it broke".to_owned()))
    }

    /// Whether it still stands.
    pub(crate) fn is_open(&self) -> bool {
        !self.outgoing.is_closed()
    }
}

fn welcome(payload: &[u8]) -> Result<Welcome, Error> {
    match Heard::decode(payload)? {
        Heard::Frame(ServerFrame::Welcome(welcome)) => Ok(*welcome),
        Heard::Frame(ServerFrame::Error(error)) => Err(Error::Socket(format!(
            "hello was refused: {}: {}",
            error.code, error.detail
        ))),
        other => Err(Error::Socket(format!("not a welcome: {other:?}"))),
    }
}

async fn read(
    mut reader: WebSocketRead<OwnedReadHalf>,
    mut hearing: Hearing,
    outgoing: mpsc::Sender<Outgoing>,
) {
    // With neither pongs nor closes of its own it never sends.
    let mut nothing = async |_frame: Frame<'_>| Ok::<(), Error>(());
    while let Ok(frame) = reader.read_frame(&mut nothing).await {
        match frame.opcode {
            OpCode::Text => hearing(&frame.payload),
            OpCode::Ping => {
                let pong = Outgoing::Pong(frame.payload.to_vec());
                if outgoing.send(pong).await.is_err() {
                    return;
                }
            }
            OpCode::Close => return,
            OpCode::Binary | OpCode::Pong | OpCode::Continuation => {}
        }
    }
}

async fn write(mut writer: WebSocketWrite<OwnedWriteHalf>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(next) = queue.recv().await {
        let frame = match &next {
            Outgoing::Text(text) => Frame::text(Payload::Borrowed(text)),
            Outgoing::Pong(payload) => Frame::pong(Payload::Borrowed(payload)),
        };
        if writer.write_frame(frame).await.is_err() {
            return;
        }
    }
}

/// Switches protocols (RFC 6455 section 4.1).
async fn upgrade(url: &str, token: &str) -> Result<TcpStream, Error> {
    let broken = |error: hyper::Error| Error::Socket(error.to_string());
    let url: Url = url
        .parse()
        .map_err(|error| Error::Failed(format!("{url}: {error}")))?;
    let (host, port) = (
        url.host_str().unwrap_or("127.0.0.1"),
        url.port_or_known_default().unwrap_or(80),
    );
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(Error::io(format!("connect to {host}:{port}")))?;
    stream
        .set_nodelay(true)
        .map_err(Error::io("set TCP_NODELAY"))?;
    let request = Request::get(url.path())
        .header(HOST, format!("{host}:{port}"))
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_VERSION, "13")
        // The sample of RFC 6455: the load has no proxy that could mistake one answer for another.
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(SEC_WEBSOCKET_PROTOCOL, "confab.v1.json")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| Error::Failed(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let (ended, response) = tokio::join!(connection.with_upgrades(), sender.send_request(request));
    let response = response.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::Socket(format!("no upgrade: {}", response.status())));
    }
    ended.map_err(broken)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>();
    let parts = parts.map_err(|_other| Error::Socket("no TCP".to_owned()))?;
    if parts.read_buf.is_empty() {
        Ok(parts.io.into_inner())
    } else {
        Err(Error::Socket("it spoke before it was greeted".to_owned()))
    }
}
