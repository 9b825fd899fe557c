//! The stateless gateway: HTTP and WebSocket in front, commands and the feed behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use confab_auth::Verifier;
use confab_bus::rpc::Workers;
use confab_bus::{Bus, BusError, Gateways};
use confab_protocol::degraded::Degraded;
use confab_protocol::timestamp::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

mod account;
mod api_docs;
mod auth;
mod cluster;
mod conditions;
mod delivery;
pub mod echo;
mod headings;
mod http;
mod hub;
mod keys;
mod limits;
#[cfg(any(test, feature = "measured"))]
#[doc(hidden)]
pub mod measured;
mod metrics;
mod origins;
mod public_url;
mod sessions;
mod settings;
mod tasks;
mod trace;
mod workers;
mod ws;

pub use crate::http::listen::ListenAddress;
pub use conditions::CONDITIONS;
pub use limits::{BadRateLimit, RateLimit};
pub use metrics::METRICS;
pub use public_url::PublicUrl;
pub use settings::Settings;

/// The OpenAPI description of HTTP, as JSON.
#[must_use]
pub fn openapi() -> serde_json::Value {
    http::openapi(None)
}

/// The AsyncAPI description of the WebSocket, as JSON.
#[must_use]
pub fn asyncapi() -> serde_json::Value {
    api_docs::asyncapi::document(None)
}

use crate::auth::Authenticator;
use crate::auth::revocations::Revocations;
use crate::cluster::presence::PresenceDirectory;
use crate::cluster::signals::{Outbound, Signalling};
use crate::hub::actor::Peers;
use crate::hub::actor::{HubHandle, HubLoops};
use crate::hub::announced::LingeringSince;
use crate::hub::feed::ToHub;
use crate::limits::connects::ConnectLimiter;
use crate::limits::parsing::Parsing;
use crate::limits::refusals::Refusals;
use crate::limits::slots::Slots;
use crate::sessions::records::Records;
use crate::workers::read_marks::{ReadMarks, ReadMarksLoop};
use crate::workers::{WorkerClient, WorkerSender};
use limits::{Limits, UserRequests, Users};
use metrics::{
    ArrivalMetrics, AuthMetrics, CacheMetrics, CommandMetrics, FeedMetrics, HttpMetrics,
    LimitMetrics, RecordMetrics, RevocationMetrics, SignalMetrics, SocketMetrics, WindowMetrics,
};
use origins::Origins;
use sessions::{Directory, Sessions};
use tasks::Tasks;

/// The gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings of tokens are not usable.
    #[error("settings of tokens")]
    Auth(#[from] confab_auth::SettingsError),
    /// An entry of the allowlist is no origin.
    #[error(
        "CONFAB_CORS_ORIGINS: {0:?} is no origin, such as https://app.example, nor `localhost`, `null`, `file://` or `*`"
    )]
    Origin(String),
    /// NATS failed.
    #[error("NATS")]
    Bus(#[from] BusError),
    /// The port cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(ListenAddress, #[source] std::io::Error),
    /// A long-lived task ended.
    #[error("the task {0} ended")]
    TaskEnded(&'static str),
}

/// How often a gateway that begins looks whether it is ready.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// What a gateway may serve on: NATS connected, keys loaded, revocations read, feed caught up, hub not stalled or far behind, replay
/// window filled.
#[derive(Debug, Clone)]
pub struct Readiness {
    bus: Bus,
    verifier: Arc<Verifier>,
    feed: FeedMetrics,
    revocations: Revocations,
    lingering: LingeringSince,
    stop: CancellationToken,
}

impl Readiness {
    /// What is missing; nothing when the gateway may serve.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = [
            ("draining", !self.stop.is_cancelled()),
            ("nats", self.bus.is_connected()),
            ("keys", self.verifier.has_keys()),
            ("revocations", self.revocations.are_loaded()),
            ("feed", self.feed.is_caught_up()),
            ("hub", self.feed.keeps_up(Instant::now())),
            ("window", self.feed.is_filled()),
        ];
        conditions
            .into_iter()
            .filter(|(_, holds)| !holds)
            .map(|(name, _)| name)
            .collect()
    }

    /// What the gateway does by another way than the usual one; it may serve all the same.
    #[must_use]
    pub fn degraded(&self) -> Vec<Degraded> {
        self.lingering.degraded().into_iter().collect()
    }
}

/// A gateway that was built and not started: everything that settings can get wrong was found.
pub struct Gateway {
    settings: Settings,
    bus: Bus,
    verifier: Arc<Verifier>,
    origins: Origins,
    limits: Limits,
    users: Users,
    requests: UserRequests,
    workers: Arc<Workers>,
    gateways: Gateways,
    commands: WorkerClient,
    command_loop: WorkerSender,
    reads: ReadMarks,
    read_marks_loop: ReadMarksLoop,
    records: Records,
    hub: HubHandle,
    hub_loops: HubLoops,
    signals: Outbound,
    signalling: Signalling,
    feed_metrics: FeedMetrics,
    sessions: Sessions,
    directory: Directory,
    revocations: Revocations,
    authenticator: Authenticator,
    arrivals: ConnectLimiter,
    /// Whether the gateway is cut off from NATS.
    degraded: watch::Sender<bool>,
    /// Since when commits linger, and who says so.
    lingering: (LingeringSince, watch::Sender<Option<Timestamp>>),
    http_metrics: HttpMetrics,
    socket_metrics: SocketMetrics,
    /// Set when the gateway is ready for the first time.
    was_ready: Arc<SetOnce<()>>,
    /// Told to stop: not ready from then on.
    stop: CancellationToken,
    /// The listener is closed and clients are sent away: the drain delay after `stop`.
    drain: CancellationToken,
}

impl Gateway {
    /// Builds a gateway that ends after `stop`.
    ///
    /// # Errors
    /// When the settings are not usable.
    pub async fn build(
        settings: Settings,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let verifier = Arc::new(Verifier::new(&settings.tokens)?);
        let origins = settings.http.origins().map_err(Error::Origin)?;
        let limit_metrics = LimitMetrics::new(registry);
        let users = Users::new(settings.limits.user_connections, limit_metrics.clone());
        let requests = UserRequests::new(settings.limits.user_requests, limit_metrics.clone());
        settings.advise();
        let bus = Bus::connect(&settings.nats, "confab-gateway").await?;
        let workers = Arc::new(Workers::new(bus.clone()));
        let gateways = Gateways::new(bus.clone());
        let feed_metrics = FeedMetrics::new(registry, settings.hub.shards().count());
        let (commands, command_loop) = WorkerClient::new(
            bus.clone(),
            Arc::clone(&workers),
            settings.workers.command_limits(),
            CommandMetrics::new(registry),
        );
        let sessions = Sessions::default();
        let revocations = Revocations::new(sessions.clone(), RevocationMetrics::new(registry));
        let authenticator = authenticator(&settings, &verifier, &revocations, registry);
        let (signals, signalling, said) =
            Outbound::new(bus.clone(), gateways.clone(), SignalMetrics::new(registry));
        let (reads, read_marks_loop) = ReadMarks::new(commands.clone(), signals.clone());
        let record_metrics = RecordMetrics::new(registry);
        let of_records = settings.sessions.records();
        let records = Records::new(bus.clone(), gateways.clone(), of_records, record_metrics);
        let peers = Peers {
            own: gateways.id(),
            signals: signals.clone(),
            said,
            directory: PresenceDirectory::new(bus.clone(), gateways.clone()),
            grace: settings.hub.presence_grace(),
        };
        let (hub, hub_loops) = HubHandle::new(
            commands.clone(),
            feed_metrics.clone(),
            CacheMetrics::new(registry),
            peers,
            settings.replay(WindowMetrics::new(registry)),
        );
        Ok(Self {
            arrivals: ConnectLimiter::new(
                settings.limits.connect_rates(),
                ArrivalMetrics::new(registry),
            ),
            limits: settings
                .limits
                .limits(settings.http.trusted_proxies, limit_metrics),
            settings,
            directory: Directory::new(bus.clone(), gateways.clone()),
            bus,
            verifier,
            origins,
            users,
            requests,
            workers,
            gateways,
            sessions,
            revocations,
            authenticator,
            degraded: watch::Sender::new(false),
            lingering: LingeringSince::new(),
            commands,
            command_loop,
            reads,
            read_marks_loop,
            records,
            hub,
            hub_loops,
            signals,
            signalling,
            feed_metrics,
            http_metrics: HttpMetrics::new(registry),
            socket_metrics: SocketMetrics::new(registry),
            was_ready: Arc::new(SetOnce::new()),
            stop,
            drain: CancellationToken::new(),
        })
    }

    /// What the gateway may serve on.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness {
            bus: self.bus.clone(),
            verifier: Arc::clone(&self.verifier),
            feed: self.feed_metrics.clone(),
            revocations: self.revocations.clone(),
            lingering: self.lingering.0.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Serves until the stop and for the drain delay behind it, then drains. `admin` has the routes of the process itself.
    ///
    /// # Errors
    /// When the port cannot be listened on, or a long-lived task ends.
    pub async fn run(self, admin: Router) -> Result<(), Error> {
        let address = self.settings.http.listen;
        let listener = address
            .bind()
            .await
            .map_err(|error| Error::Listen(address, error))?;
        info!(address = %address, "the gateway listens");
        let connections = TaskTracker::new();
        let router = self.router(admin, &connections);
        let server_limits = {
            let (http, limits) = (&self.settings.http, &self.settings.limits);
            http.server_limits(limits.max_connections, self.settings.drain())
        };
        let places =
            http::server::Places::new(server_limits.connections, &self.socket_metrics.connections);
        let delay = Duration::from_secs(self.settings.drain_delay);
        let (bus, stop, drain) = (self.bus.clone(), self.stop.clone(), self.drain.clone());
        let records = self.records.clone();
        let begun = first_ready(self.readiness(), Arc::clone(&self.was_ready));
        let mut tasks = self.start();
        let serving = async {
            let draining = drain_after(stop, delay, &drain);
            let places = (places, connections);
            let serving =
                http::server::serve(listener, router, server_limits, places, drain.clone());
            tokio::join!(serving, draining);
        };
        let served = tokio::select! {
            () = serving => Ok(()),
            ended = tasks.ended() => Err(Error::TaskEnded(ended)),
            never = begun => match never {},
        };
        // The connections have ended; what they left behind is written while there is still someone to write it.
        records.flush(server_limits.drain).await;
        tasks.end().await;
        bus.close().await;
        served
    }

    /// Starts everything that runs behind the server.
    fn start(self) -> Tasks {
        let Self {
            settings,
            bus,
            verifier,
            limits,
            users,
            workers,
            gateways,
            sessions,
            directory,
            revocations,
            commands,
            command_loop,
            read_marks_loop,
            records,
            hub,
            hub_loops,
            signalling,
            feed_metrics,
            degraded,
            lingering: (_, lingering_since),
            ..
        } = self;
        let (events, from_feed, epochs) = ToHub::new(settings.hub.shards(), feed_metrics.broken());
        let link = bus.connection();
        let reach = settings.window_reach();
        let (revocations_bus, announced_bus, feed_bus) = (bus.clone(), bus.clone(), bus);
        let mut tasks = Tasks::default();
        tasks.spawn("keys", async move |stop| verifier.run(stop).await);
        tasks.spawn("limits", async move |stop| limits.run(stop).await);
        tasks.spawn("users", async move |stop| users.run(stop).await);
        tasks.spawn("workers", async move |stop| workers.run(stop).await);
        tasks.spawn("gateways", async move |stop| gateways.run(stop).await);
        tasks.spawn("sessions", |stop| sessions::run(directory, sessions, stop));
        let lifetimes = settings.lifetimes();
        let asked = commands.clone();
        tasks.spawn("conditions", |stop| asked.settle(stop));
        tasks.spawn("revocations", move |stop| {
            auth::revocations::run(revocations, revocations_bus, commands, lifetimes, stop)
        });
        tasks.spawn("signals", |stop| signalling.run(stop));
        tasks.spawn("reads", |stop| read_marks_loop.run(stop));
        let announced_hub = hub.clone();
        tasks.spawn("lingering", |stop| {
            hub::announced::run(announced_bus, announced_hub, lingering_since, stop)
        });
        tasks.spawn("records", |stop| sessions::records::run(records, hub, stop));
        tasks.spawn("commands", |stop| command_loop.run(stop));
        let HubLoops {
            shards,
            coordinator,
            presence,
        } = hub_loops;
        for (shard, from_feed) in shards.into_iter().zip(from_feed) {
            tasks.spawn("shard", |stop| shard.run(from_feed, stop));
        }
        tasks.spawn("coordinator", |stop| coordinator.run(epochs, stop));
        tasks.spawn("presence", |stop| presence.run(stop));
        let lag_metrics = feed_metrics.clone();
        tasks.spawn("lag", |stop| hub::lag::run(lag_metrics, stop));
        tasks.spawn("feed", |stop| {
            hub::feed::run(feed_bus, events, reach, feed_metrics, stop)
        });
        tasks.spawn("degraded", |stop| {
            cluster::degraded::run(link, degraded, stop)
        });
        tasks
    }

    fn router(&self, admin: Router, connections: &TaskTracker) -> Router {
        let parsing = Parsing::default();
        let app = http::App {
            authenticator: self.authenticator.clone(),
            commands: self.commands.clone(),
            reads: self.reads.clone(),
            directory: self.directory.clone(),
            asking: http::AskingAll::new(),
            presence: PresenceDirectory::new(self.bus.clone(), self.gateways.clone()),
            records: self.records.clone(),
            session_seconds: self.settings.lifetimes().session_seconds,
            body_timeout: Duration::from_secs(self.settings.http.body_timeout),
            longest: self.settings.http.longest(self.settings.workers.budget()),
            parsing: parsing.clone(),
            limits: self.limits.clone(),
            requests: self.requests.clone(),
            metrics: self.http_metrics.clone(),
            origin_log: http::origin_log::OriginLog::default(),
            was_ready: Arc::clone(&self.was_ready),
        };
        let sockets = ws::Sockets {
            authenticator: self.authenticator.clone(),
            commands: self.commands.clone(),
            reads: self.reads.clone(),
            hub: self.hub.clone(),
            records: self.records.clone(),
            signals: self.signals.clone(),
            arrivals: self.arrivals.clone(),
            degraded: self.degraded.subscribe(),
            limits: self
                .settings
                .ws
                .socket_limits(self.settings.limits.resume_rate, self.settings.drain()),
            parsing,
            rates: self.limits.clone(),
            users: self.users.clone(),
            origins: self.origins.clone(),
            slots: Slots::new(
                self.settings.limits.max_connections,
                self.socket_metrics.connections.of("websocket"),
            ),
            greeting: Slots::new(
                self.settings.limits.hello_connections,
                self.socket_metrics.connections.before_hello(),
            ),
            connections: connections.clone(),
            drain: self.drain.clone(),
            metrics: self.socket_metrics.clone(),
        };
        let front = http::Front {
            pages: http::home::Pages::with_try(self.settings.try_page),
            cors: http::cors::Rules::new(self.origins.clone()),
            public_url: self.settings.http.public_url.clone(),
        };
        http::router(Arc::new(app), Arc::new(sockets), admin, front)
    }
}

/// Checks tokens, and what is revoked of them.
fn authenticator(
    settings: &Settings,
    verifier: &Arc<Verifier>,
    revocations: &Revocations,
    registry: &mut Registry,
) -> Authenticator {
    Authenticator::new(
        Arc::clone(verifier),
        revocations.clone(),
        Refusals::new(settings.auth.explain_refusals),
        AuthMetrics::new(registry),
        settings.http.trusted_proxies,
    )
}

/// Sets `was_ready` when the gateway is ready for the first time, and ends never.
async fn first_ready(readiness: Readiness, was_ready: Arc<SetOnce<()>>) -> Infallible {
    while !readiness.missing().is_empty() {
        tokio::time::sleep(READY_INTERVAL).await;
    }
    if was_ready.set(()).is_err() {
        debug!("it was ready before");
    }
    std::future::pending().await
}

/// Begins the drain when `stop` was told and the delay is over: whoever balances clients over gateways sends new ones here until it has
/// read `/ready` once more.
async fn drain_after(stop: CancellationToken, delay: Duration, drain: &CancellationToken) {
    stop.cancelled().await;
    info!(
        duration_ms = delay.as_millis(),
        "not ready; new connections are accepted until the drain begins"
    );
    tokio::time::sleep(delay).await;
    drain.cancel();
}
