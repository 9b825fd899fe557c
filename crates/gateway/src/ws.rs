//! The WebSocket side of the gateway.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::Response;
use confab_auth::Caller;
use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, error_span};
use uuid::Uuid;

use crate::auth::{Authenticator, Transport};
use crate::cluster::signals::Outbound;
use crate::hub::actor::HubHandle;
use crate::limits::connects::ConnectLimiter;
use crate::limits::parsing::Parsing;
use crate::limits::slots::{Slot, Slots};
use crate::limits::{CONNECT_PRICE, Limits, Peer, Users};
use crate::metrics::SocketMetrics;
use crate::origins::Origins;
use crate::sessions::records::Records;
use crate::trace::traceparent;
use crate::workers::WorkerClient;
use crate::workers::read_marks::ReadMarks;

mod asked;
pub(crate) mod codec;
mod commands;
mod connection;
mod ending;
mod hello;
mod meter;
mod opening;
mod renewal;
mod sends;
mod session;
mod settings;
pub(crate) mod socket;
mod typing;
pub(crate) mod upgrade;

pub(crate) use settings::SocketSettings;

use upgrade::{Handshake, upgraded};

/// What every socket of the gateway needs.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Who is calling.
    pub(crate) authenticator: Authenticator,
    /// The handle to the workers.
    pub(crate) commands: WorkerClient,
    /// The handle for read marks.
    pub(crate) reads: ReadMarks,
    /// The handle to the hub.
    pub(crate) hub: HubHandle,
    /// The records of sessions.
    pub(crate) records: Records,
    /// The handle to the other gateways.
    pub(crate) signals: Outbound,
    /// The gate for those who come.
    pub(crate) arrivals: ConnectLimiter,
    /// Whether the gateway is cut off: clients are told to try elsewhere.
    pub(crate) degraded: watch::Receiver<bool>,
    /// Times and bounds.
    pub(crate) limits: SocketLimits,
    /// Turns for parsing what is large.
    pub(crate) parsing: Parsing,
    /// Rate limits.
    pub(crate) rates: Limits,
    /// What one user may have at once.
    pub(crate) users: Users,
    /// Origins that browsers may connect from; none given means the gateway's own.
    pub(crate) origins: Origins,
    /// Those of the sockets there may be.
    pub(crate) slots: Slots,
    /// Those of the sockets that may wait for a hello with a token.
    pub(crate) greeting: Slots,
    /// Every connection runs here, and is waited for at the end.
    pub(crate) connections: TaskTracker,
    /// The gateway drains: clients are told to go.
    pub(crate) drain: CancellationToken,
    /// Metrics of sockets.
    pub(crate) metrics: SocketMetrics,
}

/// Times and bounds of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketLimits {
    /// How long a hello is waited for.
    pub(crate) hello: Duration,
    /// How often the server pings.
    pub(crate) heartbeat: Duration,
    /// How long a client may take nothing while something waits for it.
    pub(crate) stall: Duration,
    /// Bytes of events that may wait for a socket.
    pub(crate) outbox_bytes: usize,
    /// How long the memberships of a session are waited for.
    pub(crate) open: Duration,
    /// Over how long the sockets of a draining gateway are closed.
    pub(crate) drain: Duration,
    /// How many sessions a second another gateway lets go on.
    pub(crate) resume_rate: u32,
}

/// Takes a socket for a valid handshake, and serves it on a task of its own.
///
/// # Errors
/// When the origin or the token is refused, its user connects too often, or the gateway has as many connections as it may have.
pub(crate) async fn accept(
    sockets: &Arc<Sockets>,
    parts: &Parts,
    handshake: Handshake,
    upgrade: OnUpgrade,
) -> Result<Response, Failure> {
    let caller = admit(sockets, parts).await?;
    let address = Peer::of(&parts.extensions).network();
    let Some(slots) = take_slots(sockets, address, caller.as_ref()) else {
        let full = Failure::new(
            Code::Overloaded,
            "the gateway has as many connections as it may have",
        );
        return Err(full.retry_after(1000));
    };
    let encoding = handshake.encoding;
    let traceparent = traceparent(&parts.headers).map(Box::from);
    // Within the span of the request that it began with, which names that one's trace.
    let span = error_span!("socket", connection.id = %Uuid::now_v7());
    let shared = Arc::clone(sockets);
    let serve = async move {
        match upgraded(upgrade).await {
            Ok((stream, read_ahead)) => {
                let stream = (stream, read_ahead);
                session::serve(&shared, stream, slots, encoding, (caller, traceparent)).await;
            }
            Err(error) => debug!(error = %chain(&error), "no WebSocket came of it"),
        }
    };
    sockets.connections.spawn(serve.instrument(span));
    Ok(handshake.response())
}

/// A socket's slot, and one among those that wait for a hello where nobody is known yet to be calling.
fn take_slots(
    sockets: &Sockets,
    address: IpAddr,
    caller: Option<&Caller>,
) -> Option<(Slot, Option<Slot>)> {
    let slot = sockets.slots.take(address)?;
    match caller {
        Some(_) => Some((slot, None)),
        None => Some((slot, Some(sockets.greeting.take(address)?))),
    }
}

/// Checks the origin, and the token where the header carries one, whose user then pays for the connection.
async fn admit(sockets: &Sockets, parts: &Parts) -> Result<Option<Caller>, Failure> {
    let headers = &parts.headers;
    sockets.origins.check(headers)?;
    if !headers.contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let admitting = sockets
        .authenticator
        .admit_header(parts, Transport::WebSocket);
    let caller = readers(admitting.await?)?;
    let rates = &sockets.rates;
    rates.charge_caller(&caller, CONNECT_PRICE, &parts.extensions)?;
    Ok(Some(caller))
}

/// Verifies a token for a socket.
async fn verify(sockets: &Sockets, token: &str) -> Result<Caller, Failure> {
    let admitting = sockets.authenticator.admit(token, Transport::WebSocket);
    readers(admitting.await?)
}

/// A socket is for those who may read.
fn readers(caller: Caller) -> Result<Caller, Failure> {
    if caller.scope.can_read() {
        Ok(caller)
    } else {
        Err(Failure::of(Code::InsufficientScope))
    }
}
