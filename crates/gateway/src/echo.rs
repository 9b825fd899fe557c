//! An echo server on the gateway's own handshake and socket, so that RFC 6455 conformance suites run against what ships.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::frames::Frame;
use crate::ws::socket::{self, Limits, Message, ReadError, Reader, Writer};
use crate::ws::upgrade::{Handshake, Rejection, upgraded};

/// How long a client may take over its side of the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The bounds of the echo server, larger than the gateway's: conformance suites send long messages in many fragments.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes of a message, its fragments together.
    pub message_bytes: usize,
    /// Fragments of a message.
    pub fragments: usize,
}

/// Echoes every message to its sender until `stop`; then each client is told so (1001) and waited for.
pub async fn serve(listener: TcpListener, settings: Settings, stop: CancellationToken) {
    let echo = Echo {
        limits: settings.into(),
        stop,
        connections: TaskTracker::new(),
    };
    while let Some(accepted) = echo.stop.run_until_cancelled(listener.accept()).await {
        // An accept that failed concerns that one connection, which is gone.
        if let Ok((stream, _)) = accepted {
            echo.connections.spawn(echo.clone().handle(stream));
        }
    }
    echo.connections.close();
    echo.connections.wait().await;
}

impl From<Settings> for Limits {
    fn from(settings: Settings) -> Self {
        Self {
            bytes: settings.message_bytes,
            fragments: settings.fragments,
        }
    }
}

/// What every connection needs.
#[derive(Debug, Clone)]
struct Echo {
    limits: Limits,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Echo {
    /// Speaks HTTP until the connection is upgraded or ends.
    async fn handle(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let response = self.answer(request);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // How an HTTP connection ended is of no interest here; an upgraded one ends at once.
        drop(self.stop.run_until_cancelled(connection).await);
    }

    fn answer(&self, mut request: Request<Incoming>) -> Response {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let handshake = match Handshake::from_parts(&parts) {
            Ok(handshake) => handshake,
            Err(rejection) => return refusal(rejection),
        };
        let echo = self.clone();
        self.connections.spawn(async move {
            if let Ok((stream, read_ahead)) = upgraded(upgrade).await
                && let Ok((reader, writer)) = socket::split(stream, &read_ahead, echo.limits)
            {
                echo.converse(reader, writer).await;
            }
        });
        handshake.response()
    }

    async fn converse(self, mut reader: Reader<OwnedReadHalf>, mut writer: Writer<OwnedWriteHalf>) {
        let last = match self
            .stop
            .run_until_cancelled(repeat(&mut reader, &mut writer))
            .await
        {
            Some(Ok(code)) => Frame::close(code, ""),
            Some(Err(error)) => Frame::close(error.close_code(), error.code().as_str()),
            None => Frame::close(1001, ""),
        };
        socket::close(&mut reader, &mut writer, last, CLOSE_TIMEOUT).await;
    }
}

fn refusal(rejection: Rejection) -> Response {
    let failure = rejection.failure();
    let status = StatusCode::from_u16(failure.code.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, rejection.headers(), failure.to_string()).into_response()
}

/// Echoes until the client closes; the code to close with in return.
async fn repeat(
    reader: &mut Reader<OwnedReadHalf>,
    writer: &mut Writer<OwnedWriteHalf>,
) -> Result<u16, ReadError> {
    loop {
        let frame = match reader.next().await? {
            Message::Text(text) => Frame::text(&text),
            Message::Binary(bytes) => Frame::binary(&bytes),
            Message::Ping(payload) => Frame::pong(&payload),
            Message::Pong(_) => continue,
            // 1005 is never sent: a close without a code is answered by one without.
            Message::Close { code, .. } => return Ok(code.unwrap_or(1005)),
        };
        writer.write([frame]).await?;
    }
}

#[cfg(test)]
mod tests;
