//! The stateless gateway: HTTP and WebSocket in front, commands and the feed behind.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use confab_auth::Verifier;
use confab_bus::rpc::Workers;
use confab_bus::{Bus, BusError, Gateways};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

mod admission;
mod commands;
pub mod echo;
mod fanout;
mod feed;
mod http;
mod hub;
mod limits;
mod metrics;
mod revocations;
mod sequencer;
mod server;
mod sessions;
mod settings;
mod ws;

pub use limits::{BadRateLimit, RateLimit};
pub use metrics::METRICS;
pub use settings::Settings;

/// The OpenAPI description of HTTP, as JSON.
#[must_use]
pub fn openapi() -> serde_json::Value {
    http::openapi::document()
}

/// The AsyncAPI description of the WebSocket, as JSON.
#[must_use]
pub fn asyncapi() -> serde_json::Value {
    ws::asyncapi::document()
}

use admission::Admission;
use commands::{CommandLoop, Commands};
use fanout::{Fanout, FanoutLoop};
use limits::Limits;
use metrics::{
    AuthMetrics, CommandMetrics, FeedMetrics, HttpMetrics, LimitMetrics, RevocationMetrics,
    SocketMetrics,
};
use revocations::Revocations;
use sessions::{Directory, Sessions};

/// The gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings of tokens are not usable.
    #[error("settings of tokens")]
    Auth(#[from] confab_auth::SettingsError),
    /// An entry of the allowlist is neither an origin nor `*`.
    #[error("CONFAB_CORS_ORIGINS: {0:?} is no origin, such as https://app.example")]
    Origin(String),
    /// NATS failed.
    #[error("NATS")]
    Bus(#[from] BusError),
    /// The port cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// A long-lived task ended.
    #[error("the task {0} ended")]
    TaskEnded(&'static str),
}

/// What a gateway may serve on: NATS connected, keys loaded, revocations read, feed caught up.
#[derive(Debug, Clone)]
pub struct Readiness {
    bus: Bus,
    verifier: Arc<Verifier>,
    feed: FeedMetrics,
    revocations: Revocations,
    stop: CancellationToken,
}

impl Readiness {
    /// What is missing; nothing when the gateway may serve.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = [
            ("stopping", !self.stop.is_cancelled()),
            ("nats", self.bus.is_connected()),
            ("keys", self.verifier.has_keys()),
            ("revocations", self.revocations.are_loaded()),
            ("feed", self.feed.is_caught_up()),
        ];
        conditions
            .into_iter()
            .filter(|(_, holds)| !holds)
            .map(|(name, _)| name)
            .collect()
    }
}

/// A gateway that was built and not started: everything that settings can get wrong was found.
pub struct Gateway {
    settings: Settings,
    bus: Bus,
    verifier: Arc<Verifier>,
    origins: Vec<String>,
    limits: Limits,
    workers: Arc<Workers>,
    gateways: Gateways,
    commands: Commands,
    command_loop: CommandLoop,
    fanout: Fanout,
    fanout_loop: FanoutLoop,
    feed_metrics: FeedMetrics,
    sessions: Sessions,
    directory: Directory,
    revocations: Revocations,
    admission: Admission,
    http_metrics: HttpMetrics,
    socket_metrics: SocketMetrics,
    stop: CancellationToken,
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
        let verifier = Arc::new(Verifier::new(&settings.auth)?);
        let origins = settings.origins().map_err(Error::Origin)?;
        let limits = Limits::new(
            &settings.rate_limit,
            settings.trusted_proxies,
            LimitMetrics::new(registry),
        );
        let bus = Bus::connect(&settings.nats, "confab-gateway").await?;
        let workers = Arc::new(Workers::new(bus.clone()));
        let gateways = Gateways::new(bus.clone());
        let feed_metrics = FeedMetrics::new(registry);
        let command_metrics = CommandMetrics::new(registry);
        let (commands, command_loop) = Commands::new(
            bus.clone(),
            Arc::clone(&workers),
            settings.command_limits(),
            command_metrics,
        );
        let sessions = Sessions::default();
        let revocations = Revocations::new(sessions.clone(), RevocationMetrics::new(registry));
        let admission = Admission::new(
            Arc::clone(&verifier),
            revocations.clone(),
            AuthMetrics::new(registry),
        );
        let (fanout, fanout_loop) = Fanout::new(commands.clone(), feed_metrics.clone());
        Ok(Self {
            settings,
            directory: Directory::new(bus.clone(), gateways.clone()),
            bus,
            verifier,
            origins,
            limits,
            workers,
            gateways,
            sessions,
            revocations,
            admission,
            commands,
            command_loop,
            fanout,
            fanout_loop,
            feed_metrics,
            http_metrics: HttpMetrics::new(registry),
            socket_metrics: SocketMetrics::new(registry),
            stop,
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
            stop: self.stop.clone(),
        }
    }

    /// Serves until the stop, then drains. `admin` has the routes of the process itself.
    ///
    /// # Errors
    /// When the port cannot be listened on, or a long-lived task ends.
    pub async fn run(self, admin: Router) -> Result<(), Error> {
        let address = self.settings.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Error::Listen(address, error))?;
        info!(address = %address, "the gateway listens");
        let connections = TaskTracker::new();
        let router = self.router(admin, &connections);
        let server_limits = self.settings.server_limits();
        let behind = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let Self {
            bus,
            verifier,
            limits,
            workers,
            gateways,
            sessions,
            directory,
            revocations,
            commands,
            command_loop,
            fanout_loop,
            feed_metrics,
            stop,
            ..
        } = self;
        let (events, from_feed) = mpsc::channel(feed::BUFFER);
        let token = behind.clone();
        tasks.spawn(async move {
            verifier.run(token).await;
            "keys"
        });
        let token = behind.clone();
        tasks.spawn(async move {
            limits.run(token).await;
            "limits"
        });
        let token = behind.clone();
        tasks.spawn(async move {
            drop(workers.run(token).await);
            "workers"
        });
        let token = behind.clone();
        tasks.spawn(async move {
            drop(gateways.run(token).await);
            "gateways"
        });
        let (token, sessions_bus) = (behind.clone(), bus.clone());
        tasks.spawn(async move {
            tokio::join!(
                sessions::run(directory, sessions, token.clone()),
                revocations::run(revocations, sessions_bus, commands, token)
            );
            "sessions"
        });
        let token = behind.clone();
        tasks.spawn(async move {
            command_loop.run(token).await;
            "commands"
        });
        let token = behind.clone();
        tasks.spawn(async move {
            fanout_loop.run(from_feed, token).await;
            "fanout"
        });
        let (token, feed_bus) = (behind.clone(), bus.clone());
        tasks.spawn(async move {
            feed::run(feed_bus, events, feed_metrics, token).await;
            "feed"
        });
        let served = tokio::select! {
            () = server::serve(listener, router, server_limits, connections, stop) => Ok(()),
            Some(ended) = tasks.join_next() => Err(Error::TaskEnded(ended.unwrap_or("panicked"))),
        };
        behind.cancel();
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), all)
            .await
            .is_err()
        {
            tracing::warn!("tasks were cut off at the end");
        }
        bus.close().await;
        served
    }

    fn router(&self, admin: Router, connections: &TaskTracker) -> Router {
        let app = http::App {
            admission: self.admission.clone(),
            commands: self.commands.clone(),
            directory: self.directory.clone(),
            body_timeout: Duration::from_secs(self.settings.body_timeout),
            longest: self.settings.longest(),
            limits: self.limits.clone(),
            metrics: self.http_metrics.clone(),
        };
        let sockets = ws::Sockets {
            admission: self.admission.clone(),
            commands: self.commands.clone(),
            fanout: self.fanout.clone(),
            limits: self.settings.socket_limits(),
            rates: self.limits.clone(),
            origins: self.origins.clone(),
            permits: Arc::new(Semaphore::new(self.settings.max_connections)),
            connections: connections.clone(),
            drain: self.stop.clone(),
            metrics: self.socket_metrics.clone(),
        };
        let cors = http::cors::rules(&self.origins);
        http::router(Arc::new(app), Arc::new(sockets), admin, cors)
    }
}
