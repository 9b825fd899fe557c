//! A WebSocket for the guide that sends frames exactly as the pages show them.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::shape::Meanings;

/// How long a frame may take to come: a gateway that stops sends its clients away over some seconds.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

/// An open connection. Dropping it breaks it.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that came and were not looked for yet.
    heard: Vec<Value>,
}

impl Socket {
    /// Connects as a request says: its first line has method and URL, the others are headers.
    pub(crate) async fn connect(request: &str) -> Self {
        let mut lines = request.lines();
        let url = lines.next().unwrap().strip_prefix("GET http").unwrap();
        let mut request = format!("ws{url}").into_client_request().unwrap();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name: HeaderName = name.parse().unwrap();
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
        let (stream, _answer) = Box::pin(connect_async(request)).await.unwrap();
        let heard = Vec::new();
        Self { stream, heard }
    }

    pub(crate) async fn say(&mut self, frame: &Value) {
        let text = Message::text(frame.to_string());
        self.stream.send(text).await.unwrap();
    }

    /// Waits for a frame that is like the one shown. Frames of which no order is promised may come before it.
    pub(crate) async fn hear(&mut self, shown: &Value, meanings: &mut Meanings, at: &str) {
        let until = Instant::now() + FRAME_TIMEOUT;
        loop {
            let mut differences = String::new();
            for (place, frame) in self.heard.iter().enumerate() {
                match meanings.learn(shown, frame) {
                    Ok(()) => {
                        self.heard.remove(place);
                        return;
                    }
                    Err(difference) => differences.push_str(&format!("\n{difference}: {frame}")),
                }
            }
            match self.next(until).await {
                Some(Message::Text(text)) => self.keep(serde_json::from_str(&text).unwrap()),
                Some(Message::Ping(_)) => {}
                other => panic!("{at}: {other:?} instead of {shown}; before:{differences}"),
            }
        }
    }

    /// Keeps a frame. The resume token of a welcome that came before it was stored follows in a frame of its own.
    fn keep(&mut self, frame: Value) {
        if frame["type"] == "resumeToken" {
            let mut welcomes = self.heard.iter_mut();
            let welcome = welcomes.find(|heard| heard["type"] == "welcome");
            if let Some(welcome) = welcome {
                welcome["resumeToken"] = frame["resumeToken"].clone();
            }
        }
        self.heard.push(frame);
    }

    /// Waits for the close frame, and gives its code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let until = Instant::now() + FRAME_TIMEOUT;
        loop {
            match self.next(until).await {
                Some(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Message::Close(None)) | None => panic!("the connection ended without a code"),
                Some(_) => {}
            }
        }
    }

    /// The next message; none at the deadline, or where the connection is lost.
    async fn next(&mut self, until: Instant) -> Option<Message> {
        timeout_at(until, self.stream.next()).await.ok()??.ok()
    }
}
