//! The one connection of a process to NATS, and what is known of its state.

mod denials;
mod identity;
mod observer;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, ServerAddr};
use tokio::sync::watch;
use tracing::warn;

use crate::error::BusError;
use denials::Denials;
use identity::ServerAddress;
use observer::Observer;
pub use settings::{AuthSettings, Settings, TlsSettings};

/// async-nats pings every 60 s by default, so that a link that swallows packets would go unnoticed for minutes.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for which JetStream's own API and acknowledgements are waited for.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for one subscriber before NATS is told that it is slow.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;
/// Publishes whose acknowledgement has not come yet.
const ACKS_IN_FLIGHT: usize = 16 * 1024;

/// Signed once at the start, to see that the key can.
const NO_NONCE: &[u8] = b"";

/// The known state of the link to NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// True if NATS is connected.
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
    denials: Denials,
}

impl Bus {
    /// Connects under `name`. Returns at once when NATS is away, and goes on trying, with jitter, for ever. What the settings name files
    /// for is read again at each attempt.
    ///
    /// # Errors
    /// When the settings name no usable server, or files that cannot be used.
    pub async fn connect(settings: &Settings, name: &str) -> Result<Self, BusError> {
        let (servers, options) = authenticated(settings).await?;
        let (states, link) = watch::channel(Link::default());
        let observer = Arc::new(Observer::new(states, settings));
        let denials = Denials::default();
        let noted = denials.clone();
        let options = options
            .name(name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(JETSTREAM_TIMEOUT))
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| delay(attempts, rand::random::<f64>()))
            .event_callback(move |event| {
                noted.note(&event);
                let observer = Arc::clone(&observer);
                async move { observer.observe(&event).await }
            });
        let client = Box::pin(options.connect(servers))
            .await
            .map_err(|error| BusError::Settings(error.to_string()))?;
        let jetstream = match &settings.nats_jetstream_domain {
            Some(domain) => ContextBuilder::new()
                .domain(domain)
                .timeout(JETSTREAM_TIMEOUT),
            None => ContextBuilder::new().timeout(JETSTREAM_TIMEOUT),
        };
        let jetstream = jetstream
            .ack_timeout(JETSTREAM_TIMEOUT)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            settings: settings.clone(),
            link,
            denials,
        })
    }

    /// Returns true if NATS is connected now, as far as the library knows.
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

/// The servers of the settings, and how a connection to them says who it is and is encrypted.
///
/// # Errors
/// When the settings name no usable server, or files that cannot be used.
pub(crate) async fn authenticated(
    settings: &Settings,
) -> Result<(Vec<ServerAddr>, ConnectOptions), BusError> {
    let ServerAddress { servers, identity } = ServerAddress::of(settings)?;
    let checked = identity.read(NO_NONCE).await;
    checked.map_err(|error| BusError::Settings(error.to_string()))?;
    check_files(&settings.tls).await?;
    let by_files = move |nonce| identity.clone().answer(nonce);
    let options = encrypted(ConnectOptions::with_auth_callback(by_files), &settings.tls);
    Ok((servers, options))
}

/// Returns how `settings` want the connection encrypted. The library reads the files at each attempt.
fn encrypted(mut options: ConnectOptions, settings: &TlsSettings) -> ConnectOptions {
    let pair = settings
        .nats_tls_cert
        .clone()
        .zip(settings.nats_tls_key.clone());
    // A server that is not encrypted would else be taken, whoever it is.
    let is_required = settings.nats_tls || settings.nats_tls_ca.is_some() || pair.is_some();
    options = options.require_tls(is_required);
    if settings.nats_tls_first {
        options = options.tls_first();
    }
    if let Some(path) = &settings.nats_tls_ca {
        options = options.add_root_certificates(path.clone());
    }
    match pair {
        Some((certificate, key)) => options.add_client_certificate(certificate, key),
        None => options,
    }
}

/// Checks at the start that the files can be read: a wrong path is to be found before anything else begins.
async fn check_files(settings: &TlsSettings) -> Result<(), BusError> {
    let files = [
        &settings.nats_tls_ca,
        &settings.nats_tls_cert,
        &settings.nats_tls_key,
    ];
    for path in files.into_iter().flatten() {
        let read = tokio::fs::read(path).await;
        read.map_err(|error| {
            BusError::Settings(format!("cannot read {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// The library's own delays have no jitter: after an outage every process would come back at once. `chance` is in 0..1.
fn delay(attempts: usize, chance: f64) -> Duration {
    let ceiling = Duration::from_millis(100 << attempts.min(5)).min(Duration::from_secs(2));
    ceiling.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests;
