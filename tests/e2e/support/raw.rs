//! A client that writes arbitrary bytes.

use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// A text frame's first byte: FIN and the opcode (RFC 6455 section 5.2).
pub(crate) const TEXT_BYTE: u8 = 0x81;
/// A binary frame's.
pub(crate) const BINARY_BYTE: u8 = 0x82;
/// A close frame's.
pub(crate) const CLOSE_BYTE: u8 = 0x88;

/// A bare connection to a gateway.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// The head of an upgrade, but for its last line.
    pub(crate) const UPGRADE_HEAD: &str = "GET /v1/ws HTTP/1.1\r\nHost: confab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: confab.v1.json\r\n";

    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects from an address of the test's own choice on this host.
    pub(crate) async fn connect_from(address: Ipv4Addr, port: u16) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((address, 0).into())?;
        let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// The bare connection.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Asks for an upgrade and says these frames, a hello first; gives the first frame of text that comes, none when the connection is
    /// refused or ends before.
    pub(crate) async fn hello(&mut self, token: &str, frames: &[&str]) -> Option<Value> {
        let head = format!(
            "{}Authorization: Bearer {token}\r\n\r\n",
            Self::UPGRADE_HEAD
        );
        self.write(head.as_bytes()).await.ok()?;
        if self.status().await? != 101 {
            return None;
        }
        for text in frames {
            self.write(&frame(TEXT_BYTE, text.as_bytes())).await.ok()?;
        }
        loop {
            match self.frame().await? {
                (TEXT_BYTE, payload) => return serde_json::from_slice(&payload).ok(),
                (CLOSE_BYTE, _) => return None,
                _ => {}
            }
        }
    }

    /// Connects and upgrades; `headers` are whole lines.
    pub(crate) async fn upgraded(port: u16, subprotocol: &str, headers: &[String]) -> Self {
        let mut raw = Self::connect(port).await;
        let (status, body) = raw.upgrade("/v1/ws", subprotocol, headers).await;
        assert_eq!(status, 101, "{body}");
        raw
    }

    /// Asks for an upgrade and gives the answer's status and, where it is no upgrade, its body.
    pub(crate) async fn upgrade(
        &mut self,
        path: &str,
        subprotocol: &str,
        headers: &[String],
    ) -> (u16, String) {
        let mut lines = vec![
            "Upgrade: websocket".to_owned(),
            "Connection: Upgrade".to_owned(),
            "Sec-WebSocket-Version: 13".to_owned(),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            format!("Sec-WebSocket-Protocol: {subprotocol}"),
        ];
        lines.extend_from_slice(headers);
        self.request("GET", path, &lines, "").await
    }

    /// Makes a request with these header lines and gives the answer's status and body.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &str,
    ) -> (u16, String) {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: confab\r\n{lines}\r\n{body}");
        self.write(head.as_bytes()).await.unwrap();
        self.answer().await.expect("an answer")
    }

    /// The next answer's status, whose body is none or does not matter; none at the connection's end.
    pub(crate) async fn status(&mut self) -> Option<u16> {
        Some(self.head().await?.0)
    }

    /// The next answer's status and body; none at the connection's end.
    pub(crate) async fn answer(&mut self) -> Option<(u16, String)> {
        let (status, head) = self.head().await?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((status, String::from_utf8(body).unwrap()))
    }

    async fn head(&mut self) -> Option<(u16, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some((status, head))
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the gateway has ended the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Whether something came that was not read yet, the connection's end included.
    pub(crate) fn has_answer(&self) -> bool {
        use futures_util::FutureExt as _;
        self.stream.peek(&mut [0]).now_or_never().is_some()
    }

    /// Writes a frame with a text as its payload.
    pub(crate) async fn text(&mut self, text: &str) {
        self.write(&frame(TEXT_BYTE, text.as_bytes()))
            .await
            .unwrap();
    }

    /// The next frame's first byte and payload; none at the connection's end.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => self.stream.read_u16().await.ok()?.into(),
            127 => self.stream.read_u64().await.ok()?,
            short => short.into(),
        };
        let mut payload = vec![0; length.try_into().unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// The welcome's payload; the ping that stands behind it is read as well.
    pub(crate) async fn welcome(&mut self) -> Vec<u8> {
        let (_, welcome) = self.frame().await.expect("a welcome");
        let (first, payload) = self.frame().await.expect("a ping");
        assert_eq!((first, payload.len()), (0x89, 8));
        welcome
    }

    /// The next text frame, read as JSON; pings are passed over.
    pub(crate) async fn json(&mut self) -> Value {
        loop {
            let (first, payload) = self.frame().await.expect("a frame");
            if first == TEXT_BYTE {
                return serde_json::from_slice(&payload).unwrap();
            }
            assert_ne!(first, CLOSE_BYTE, "{}", String::from_utf8_lossy(&payload));
        }
    }

    /// Reads to the connection's end and gives the close frame's code and reason, and the JSON frames before it.
    pub(crate) async fn ended(&mut self) -> Ended {
        let mut before = Vec::new();
        let mut close = None;
        while let Some((first, payload)) = self.frame().await {
            match (first, payload.split_first_chunk()) {
                (TEXT_BYTE, _) => before.push(serde_json::from_slice(&payload).unwrap()),
                (CLOSE_BYTE, Some((code, reason))) => {
                    let reason = String::from_utf8(reason.to_vec()).unwrap();
                    close = Some((u16::from_be_bytes(*code), reason));
                    // A client that is told to go answers so (RFC 6455 section 5.5.1), as far as it is still heard.
                    let _gone = self.write(&frame(CLOSE_BYTE, code)).await.is_err();
                }
                _ => {}
            }
        }
        Ended { close, before }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The close frame's code and reason; none when there was no such frame.
    pub(crate) close: Option<(u16, String)>,
    /// The JSON frames that came before.
    pub(crate) before: Vec<Value>,
}

impl Ended {
    /// The close code.
    pub(crate) fn code(&self) -> Option<u16> {
        self.close.as_ref().map(|(code, _)| *code)
    }
}

/// A masked frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len());
    // A mask of zeroes leaves the payload as it is.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A masked frame's head, without its mask.
pub(crate) fn frame_head(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(long)) => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes
}
