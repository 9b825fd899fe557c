//! The accept loop: axum's own has no time limit for headers, and hides the socket that a WebSocket needs bare.
//!
//! It always accepts, so that what orchestrators ask waits behind nobody. When all slots are taken a silent connection is closed for the
//! newcomer, or one whose request still comes; when there is none, the newcomer is served by a small reserve, which answers probes and
//! refuses the rest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::conditions::ACCEPTING_CONDITION;
use crate::limits::slots::{Slot, Slots};
use crate::limits::{Peer, RequestShare};
use crate::metrics::{AllConnectionMetrics, ConnectionMetrics};

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
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long the peer's system may take nothing of what was written before the connection is given up: longer than any
/// limit of ours on slow clients, for those who neither read an answer nor say anything more.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the loop waits when the system has no more descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long a connection made shortly before the stop may take to ask for the first time: a proxy has made it for a request that it may not
/// send to another gateway any more.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that are accepted when the listener closes: no more wait in the system's queue.
const LAST_CONNECTIONS: usize = 4096;
/// Connections beyond the bound that are served what orchestrators ask.
const RESERVED_CONNECTIONS: usize = 64;

/// Marks requests of connections beyond the bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved;

/// Where connections are counted, and who makes room when there are too many.
#[derive(Debug)]
pub(crate) struct Places {
    slots: Slots,
    reserve: Reserve,
}

/// The connections beyond the bound. Each lives as long as the newer ones leave it room, so that whoever asks at once is answered.
#[derive(Debug)]
struct Reserve {
    open: VecDeque<CancellationToken>,
    metrics: ConnectionMetrics,
}

/// Where a connection is counted.
#[derive(Debug)]
enum Place {
    Slot(Slot),
    Reserved(CancellationToken, ConnectionMetrics),
}

impl Places {
    pub(crate) fn new(connections: usize, metrics: &AllConnectionMetrics) -> Self {
        let reserve = Reserve {
            open: VecDeque::with_capacity(RESERVED_CONNECTIONS),
            metrics: metrics.of("reserved"),
        };
        Self {
            slots: Slots::new(connections, metrics.of("http")),
            reserve,
        }
    }

    fn take(&mut self, peer: Peer) -> Place {
        match self.slots.take(peer.network()) {
            Some(slot) => Place::Slot(slot),
            None => self.reserve.take(),
        }
    }
}

impl Reserve {
    fn take(&mut self) -> Place {
        self.open.retain(|one| !one.is_cancelled());
        while self.open.len() >= RESERVED_CONNECTIONS {
            if let Some(oldest) = self.open.pop_front() {
                oldest.cancel();
                self.metrics.evicted();
            }
        }
        let ended = CancellationToken::new();
        self.open.push_back(ended.clone());
        self.metrics.opened();
        Place::Reserved(ended, self.metrics.clone())
    }
}

impl Place {
    /// Whether the connection may ask for something; it keeps its place until it was answered.
    fn asks(&self) -> bool {
        match self {
            Self::Slot(slot) => slot.asks(),
            Self::Reserved(ended, _) => !ended.is_cancelled(),
        }
    }

    /// Whether it may begin to; until the body has come it may lose its place to another.
    fn receives(&self) -> bool {
        match self {
            Self::Slot(slot) => slot.receives(),
            Self::Reserved(ended, _) => !ended.is_cancelled(),
        }
    }

    /// It was answered.
    fn silent(&self) {
        if let Self::Slot(slot) = self {
            slot.silent();
        }
    }

    /// Comes when it must give up its place. Cancel-safe.
    async fn evicted(&self) {
        match self {
            Self::Slot(slot) => slot.evicted().await,
            Self::Reserved(ended, _) => ended.cancelled().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Reserved(ended, metrics) = self {
            ended.cancel();
            metrics.ended();
        }
    }
}

/// Serves until `stop`, then lets what runs on `connections` end within the drain time.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    (mut places, connections): (Places, TaskTracker),
    stop: CancellationToken,
) {
    let monitor = Monitor::new(ACCEPTING_CONDITION);
    let mut spawn = |(stream, peer)| {
        let place = places.take(peer);
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(connection((stream, peer), place, router, limits, stop));
    };
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener)).await {
        match accepted {
            Ok(accepted) => {
                monitor.succeeded();
                spawn(accepted);
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                monitor.failed(&error);
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    for accepted in close(listener) {
        spawn(accepted);
    }
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

/// Whether only the connection failed that was to be accepted, by its peer's doing.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | NotConnected
    )
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, peer) = listener.accept().await?;
    prepare(stream, peer)
}

/// Closes the listener, and gives the connections that the system has made and nobody has accepted: closing alone would reset them, with
/// the requests that they carry.
fn close(listener: TcpListener) -> Vec<(TcpStream, Peer)> {
    let mut made = Vec::new();
    let listener = match listener.into_std() {
        Ok(listener) => listener,
        Err(error) => {
            debug!(error = %chain(&error), "connections that were not accepted are reset");
            return made;
        }
    };
    // Others may go on coming until the listener is closed.
    for _ in 0..LAST_CONNECTIONS {
        let Ok((stream, peer)) = listener.accept() else {
            break;
        };
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        made.extend(stream.and_then(|stream| prepare(stream, peer)));
    }
    made
}

fn prepare(stream: TcpStream, peer: SocketAddr) -> io::Result<(TcpStream, Peer)> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    // On a socket for both families IPv4 addresses come mapped into IPv6.
    Ok((stream, Peer(peer.ip().to_canonical())))
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    place: Place,
    router: Router,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let place = Arc::new(place);
    let is_reserved = matches!(*place, Place::Reserved(..));
    let of_requests = Arc::clone(&place);
    let asked = Arc::new(Notify::new());
    let of_first = Arc::clone(&asked);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        of_first.notify_one();
        let (router, place) = (router.clone(), Arc::clone(&of_requests));
        let may_ask = if request.body().is_end_stream() {
            place.asks()
        } else {
            place.receives()
        };
        let mut request = request.map(|body| {
            let place = Arc::clone(&place);
            Body::new(Asked { body, place })
        });
        request.extensions_mut().insert(peer);
        if is_reserved {
            request.extensions_mut().insert(Reserved);
        }
        async move {
            if !may_ask {
                // The connection is given up before it is asked again.
                std::future::pending::<()>().await;
            }
            let mut response = answer(router, request).await;
            let share = response.extensions_mut().remove::<RequestShare>();
            let share = share.unwrap_or_default();
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                place,
                _share: share,
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(!is_reserved)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = place.evicted() => return,
        ended = &mut connection => ended,
        () = stopped(&stop, &asked, limits.drain) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                () = place.evicted() => return,
                ended = connection => ended,
            }
        }
    };
    if let Err(error) = ended {
        debug!(error = %chain(&error), "a connection failed");
    }
}

/// Comes at the stop; for a connection that has not asked yet when it does so, or soon after, within the drain time.
async fn stopped(stop: &CancellationToken, asked: &Notify, drain: Duration) {
    stop.cancelled().await;
    let within = FIRST_REQUEST_TIMEOUT.min(drain / 2);
    let first = tokio::time::timeout(within, asked.notified());
    first.await.unwrap_or_default();
}

async fn answer(router: Router, request: Request) -> axum::response::Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A request's body. Until it has come, or is not wanted any more, the connection's place may be given to another.
#[derive(Debug)]
struct Asked {
    body: Incoming,
    place: Arc<Place>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.place.asks();
        }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Of a body in chunks only its end says so.
        let is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        let has_come = is_over || (polled.is_ready() && self.body.is_end_stream());
        if has_come && !self.place.asks() {
            // What was asked for is not begun: the connection is given up before it goes on.
            return Poll::Pending;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Once it is dropped, nothing of the answer is left but what the system has of it.
#[derive(Debug)]
struct Answer {
    body: Body,
    place: Arc<Place>,
    /// What it holds of its user's share.
    _share: RequestShare,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.silent();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
