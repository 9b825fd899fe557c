//! The accept loop: axum's own has no time limit for headers, and hides the socket that a WebSocket needs bare.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::limits::Peer;

/// Bounds of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// How long a request's headers may take, the wait for a next request on the same connection included.
    pub(crate) header_timeout: Duration,
    /// How long connections may go on after the stop.
    pub(crate) drain: Duration,
}

/// Bytes of a request's head, all headers together.
const HEAD: usize = 64 * 1024;
/// How long the peer's system may take nothing of what was written before the connection is given up: longer than any
/// limit of ours on slow clients, for those who neither read an answer nor say anything more.
const UNTAKEN: Duration = Duration::from_secs(60);
/// How long the loop waits when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets what runs on `connections` end within the drain time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &permits)).await {
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, router, limits, stop).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait())
        .await
        .is_err()
    {
        warn!(
            left = connections.len(),
            "connections were cut off at the end of the drain time"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, Option<tokio::sync::OwnedSemaphorePermit>)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN))?;
    Ok((stream, Peer(peer.ip()), permit))
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection failed");
    }
}

async fn answer(router: Router, request: Request) -> axum::response::Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
