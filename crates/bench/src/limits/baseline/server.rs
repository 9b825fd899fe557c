//! The bare server itself: fastwebsockets reads, frames are built once, and what waits for a socket goes in one write.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, Role, after_handshake_split};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Error;

/// Frames that may wait for one socket: one for which more would is given up.
const SEND_QUEUE_FRAMES: usize = 1024;
/// Frames that go in one write at most.
const AT_ONCE: usize = 64;

/// What the accept header is hashed with (RFC 6455 section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a bare server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BaselineKind {
    /// It reads what comes, and does nothing with it.
    Hearing,
    /// It writes the text of each frame that comes to all its sockets; what waits for one of them goes in one write.
    Telling,
}

/// A bare server, as a process of its own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BaselineSettings {
    /// What it does.
    #[arg(long)]
    kind: BaselineKind,
    /// Where it listens.
    #[arg(long)]
    port: u16,
}

/// Those to whom each frame goes.
#[derive(Debug, Default)]
struct Sockets(Mutex<Vec<mpsc::Sender<Bytes>>>);

impl Sockets {
    fn add(&self) -> mpsc::Receiver<Bytes> {
        let (queue, waiting) = mpsc::channel(SEND_QUEUE_FRAMES);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(queue);
        waiting
    }

    fn tell(&self, frame: &Bytes) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|queue| queue.try_send(frame.clone()).is_ok());
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(settings: BaselineSettings) -> Result<(), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await;
    let listener = listener.map_err(Error::io("listen"))?;
    let sockets = Arc::new(Sockets::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.map_err(Error::io("accept"))?;
        stream
            .set_nodelay(true)
            .map_err(Error::io("set TCP_NODELAY"))?;
        connections.spawn(connection(stream, settings.kind, Arc::clone(&sockets)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, kind: BaselineKind, sockets: Arc<Sockets>) {
    // What the handshake takes is not kept for the connection's life.
    if let Some(stream) = Box::pin(shake_hands(stream)).await {
        let (read, write) = stream.into_split();
        match kind {
            BaselineKind::Hearing => hear(read, |_| {}).await,
            BaselineKind::Telling => {
                let waiting = sockets.add();
                let heard = hear(read, |text| sockets.tell(&frame(text)));
                tokio::join!(heard, write_all(write, waiting));
            }
        }
    }
}

/// Answers one request; gives the connection where that was a WebSocket's.
async fn shake_hands(stream: TcpStream) -> Option<TcpStream> {
    let shaken = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request, &shaken);
        async { answer }
    });
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    served.await.ok()?;
    let upgrade: OnUpgrade = shaken
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    parts.read_buf.is_empty().then(|| parts.io.into_inner())
}

/// Switches protocols where that is asked for (RFC 6455 section 4.2.2); else says that it is there.
fn answer(
    request: Request<Incoming>,
    shaken: &Mutex<Option<OnUpgrade>>,
) -> Result<Response<Empty<Bytes>>, hyper::http::Error> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return Ok(Response::new(Empty::new()));
    };
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_GUID);
    let accept = STANDARD.encode(hash.finish());
    *shaken.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(request));
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(Empty::new())
}

async fn hear(read: OwnedReadHalf, hearing: impl Fn(&[u8])) {
    let (mut reader, _) = after_handshake_split(read, tokio::io::sink(), Role::Server);
    reader.set_auto_pong(false);
    reader.set_auto_close(false);
    // With neither pongs nor closes of its own it never sends.
    let mut nothing = async |_frame: Frame<'_>| Ok::<(), Error>(());
    while let Ok(frame) = reader.read_frame(&mut nothing).await {
        match frame.opcode {
            OpCode::Text => hearing(&frame.payload),
            OpCode::Close => return,
            OpCode::Binary | OpCode::Ping | OpCode::Pong | OpCode::Continuation => {}
        }
    }
}

/// A text frame, header included, for every socket.
fn frame(text: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    Frame::text(Payload::Borrowed(text)).write(&mut bytes);
    bytes.into()
}

async fn write_all(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Bytes>) {
    let mut frames = Vec::with_capacity(AT_ONCE);
    let mut joined = Vec::new();
    while waiting.recv_many(&mut frames, AT_ONCE).await > 0 {
        let bytes = match frames.as_slice() {
            [one] => one,
            all => {
                joined.clear();
                all.iter().for_each(|frame| joined.extend_from_slice(frame));
                joined.as_slice()
            }
        };
        if write.write_all(bytes).await.is_err() {
            return;
        }
        frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::load::Connection;

    #[tokio::test]
    async fn what_one_says_all_hear() {
        let port = confab_stack::free_port().unwrap();
        let settings = BaselineSettings {
            kind: BaselineKind::Telling,
            port,
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(settings));
        let (tell, mut told) = unbounded_channel();
        let mut connections = Vec::new();
        while connections.len() < 2 {
            let (tell, place) = (tell.clone(), connections.len());
            let hearing = Box::new(move |text: &[u8]| tell.send((place, text.to_vec())).unwrap());
            let url = format!("http://127.0.0.1:{port}");
            if let Ok(connection) = Connection::unwelcomed(&url, "", hearing).await {
                connections.push(connection);
            }
        }
        // Said again until both hear: an upgraded socket may be entered a moment later.
        let mut heard = [0; 2];
        while heard.contains(&0) {
            connections[0].send("hello".into()).await.unwrap();
            let next = timeout(Duration::from_secs(10), told.recv()).await;
            let (place, text) = next.unwrap().unwrap();
            assert_eq!(text, b"hello");
            heard[place] += 1;
        }
    }
}
