//! The one connection of a process to NATS, and what is known of its state.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::error::BusError;

/// Where NATS is, and as whom to connect.
#[derive(Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct Settings {
    /// NATS servers, separated by commas. Required unless NATS is on this machine.
    #[arg(
        long,
        env = "CONFAB_NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222",
        value_delimiter = ',',
        value_name = "URL",
        help_heading = "Required"
    )]
    pub nats_url: Vec<String>,
    /// The user at NATS, where it wants one; a user in the URL is not heeded.
    #[arg(
        long,
        env = "CONFAB_NATS_USER",
        value_name = "USER",
        requires = "nats_password"
    )]
    pub nats_user: Option<String>,
    /// The user's password.
    #[arg(
        long,
        env = "CONFAB_NATS_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        requires = "nats_user"
    )]
    pub nats_password: Option<String>,
    /// A credentials file (JWT and nkey seed) for NATS.
    #[arg(long, env = "CONFAB_NATS_CREDENTIALS", value_name = "PATH")]
    pub nats_credentials: Option<PathBuf>,
    /// Replicas of the streams that confab makes: 1, or 3 on a cluster.
    #[arg(
        long,
        env = "CONFAB_NATS_REPLICAS",
        value_name = "NUMBER",
        default_value_t = 1
    )]
    pub nats_replicas: usize,
    /// How long events are kept in the stream: the resume window and a margin.
    #[arg(long, env = "CONFAB_EVENTS_MAX_AGE", value_name = "SECONDS", default_value_t = 20 * 60)]
    pub events_max_age: u64,
    /// How many bytes of events are kept in the stream at most; the oldest go first.
    #[arg(long, env = "CONFAB_EVENTS_MAX_BYTES", value_name = "BYTES", default_value_t = 1 << 30)]
    pub events_max_bytes: i64,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("nats_replicas", &self.nats_replicas)
            .finish_non_exhaustive()
    }
}

/// async-nats pings every 60 s by default, so that a link that swallows packets would go unnoticed for minutes.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long JetStream's own API and acknowledgements are waited for.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for one subscriber before NATS is told that it is slow.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;
/// Publishes whose acknowledgement has not come yet.
const ACKS_IN_FLIGHT: usize = 16 * 1024;

/// What is known of the link to NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether NATS is connected.
    pub connected: bool,
    /// Grows at every connect, and when messages were dropped because a subscriber was slow: read again what a gap would hide.
    pub epoch: u64,
}

/// The process's connection to NATS. Clones share it.
#[derive(Debug, Clone)]
pub struct Bus {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) settings: Settings,
    link: watch::Receiver<Link>,
}

impl Bus {
    /// Connects under `name`. Returns at once when NATS is away, and goes on trying, with jitter, for ever.
    ///
    /// # Errors
    /// When the settings name no usable server or credentials.
    pub async fn connect(settings: &Settings, name: &str) -> Result<Self, BusError> {
        let (states, link) = watch::channel(Link::default());
        let mut options = ConnectOptions::new()
            .name(name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(JETSTREAM_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| delay(attempts, rand::random::<f64>()))
            .event_callback(move |event| {
                observe(&states, &event);
                std::future::ready(())
            });
        if let Some(path) = &settings.nats_credentials {
            let unreadable = |e| BusError::Settings(format!("credentials {}: {e}", path.display()));
            options = options.credentials_file(path).await.map_err(unreadable)?;
        }
        if let (Some(user), Some(password)) = (&settings.nats_user, &settings.nats_password) {
            options = options.user_and_password(user.clone(), password.clone());
        }
        let client = options
            .connect(settings.nats_url.as_slice())
            .await
            .map_err(|error| BusError::Settings(error.to_string()))?;
        let jetstream = ContextBuilder::new()
            .timeout(JETSTREAM_TIMEOUT)
            .ack_timeout(JETSTREAM_TIMEOUT)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            settings: settings.clone(),
            link,
        })
    }

    /// Whether NATS is connected now, as far as the library knows.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The state of the link, and its changes.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Writes out what was published and waits until the server has it, for a bounded time.
    pub async fn close(self) {
        if self.is_connected()
            && tokio::time::timeout(CONNECT_TIMEOUT, self.client.flush())
                .await
                .is_err()
        {
            warn!("NATS did not take the last messages in time");
        }
    }
}

fn observe(states: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            info!("connected to NATS");
            states.send_modify(|link| {
                *link = Link {
                    connected: true,
                    epoch: link.epoch + 1,
                }
            });
        }
        Event::Disconnected | Event::Closed => {
            warn!("disconnected from NATS");
            states.send_modify(|link| link.connected = false);
        }
        Event::SlowConsumer(_) => {
            warn!("NATS messages were dropped: a subscriber was slow");
            states.send_modify(|link| link.epoch += 1);
        }
        Event::LameDuckMode | Event::Draining => info!(%event, "NATS server is leaving"),
        Event::ServerError(_) | Event::ClientError(_) => warn!(%event, "NATS reported an error"),
    }
}

/// The library's own delays have no jitter: after an outage every process would come back at once. `chance` is in 0..1.
fn delay(attempts: usize, chance: f64) -> Duration {
    let ceiling = Duration::from_millis(100 << attempts.min(5)).min(Duration::from_secs(2));
    ceiling.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_are_soon_at_first_and_never_rarer_than_two_seconds() {
        assert!(delay(1, 0.0) >= Duration::from_millis(100));
        for attempts in 0..100 {
            assert!(delay(attempts, 1.0) <= Duration::from_secs(2));
        }
    }
}
