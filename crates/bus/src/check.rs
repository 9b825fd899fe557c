//! Checks of NATS as a role needs it: the server, JetStream and its limits, permissions, clocks. Nothing is stored or changed.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, Event, ServerAddr, ServerError};
use confab_protocol::check::Check;
use confab_protocol::limits;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::connection::{Settings, authenticated};

mod account;
mod probes;
mod streams;

/// Time that all may take: whoever starts on something wrong has the reason in its log within two seconds.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1900);
/// Time that one server may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1200);
/// What a message needs beside its payload: headers count to NATS' `max_payload`.
const HEADER_BYTES: usize = 16 * 1024;
/// The oldest nats-server that is supported (major, minor).
const MIN_VERSION: (u32, u32) = (2, 12);

/// Whose needs are checked.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// A worker's.
    Worker,
    /// A gateway's.
    Gateway {
        /// The bound of the bucket of sessions, in bytes.
        sessions_max_bytes: i64,
    },
}

/// Errors that the server told the connection, such as permissions that are missing.
#[derive(Debug, Clone, Default)]
struct ServerErrors(Arc<Mutex<Vec<String>>>);

impl ServerErrors {
    fn add(&self, error: String) {
        self.lock().push(error);
    }

    fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for the time of a check.
struct Connected {
    address: String,
    client: Client,
    errors: ServerErrors,
}

/// Checks NATS as `settings` name it for a role, within two seconds.
pub async fn nats(settings: &Settings, role: Role) -> Vec<Check> {
    let deadline = Instant::now() + CHECK_TIMEOUT;
    let (connected, mut checks) = connect_all(settings).await;
    let Some(connected) = connected else {
        return checks;
    };
    let address = connected.address.as_str();
    let info = connected.client.server_info();
    let domain = settings.nats_jetstream_domain.as_deref();
    // Of the servers of another domain nothing is said here.
    if domain.is_none() {
        checks.extend(replicas(info.cluster.as_deref(), settings, address));
    }
    let probed = probes::run(&connected, domain, role, deadline).await;
    checks.push(probes::permissions(&probed, address));
    match account::read(&probed, address) {
        Ok(account) => {
            let (streams, clock) = streams::check(&probed, settings, role, address);
            checks.push(account::limits(&account, &streams, settings, role, address));
            checks.extend(streams.into_iter().map(|stream| stream.check));
            checks.extend(clock);
        }
        Err(Some(check)) => checks.push(check),
        // The permission to ask is missing, which is said already.
        Err(None) => {}
    }
    checks
}

/// Connects to each server of the settings; gives the first connection, and a check for each server.
async fn connect_all(settings: &Settings) -> (Option<Connected>, Vec<Check>) {
    let (servers, _) = match authenticated(settings).await {
        Ok(usable) => usable,
        Err(error) => return (None, vec![unusable("CONFAB_NATS_URL", &error)]),
    };
    let connecting = servers.into_iter().map(|server| connect(settings, server));
    let mut first = None;
    let mut checks = Vec::new();
    for tried in join_all(connecting).await {
        match tried {
            Ok(connected) => {
                let info = connected.client.server_info();
                let (address, version) = (&connected.address, &info.version);
                let found = format!("connected to nats-server {version}");
                checks.push(Check::ok("nats", address, found));
                checks.push(is_supported(version, address));
                checks.push(payload(info.max_payload, address));
                first = first.or(Some(connected));
            }
            Err(check) => checks.push(*check),
        }
    }
    (first, checks)
}

/// An unusable URL is not shown: it may hold a password.
fn unusable(address: &str, error: &(dyn std::error::Error + 'static)) -> Check {
    let remedy =
        "correct the settings of NATS: CONFAB_NATS_URL and what stands beside it in --help";
    let found = "the settings of NATS cannot be used";
    Check::fail("nats", address, found, remedy).because(error)
}

async fn connect(settings: &Settings, server: ServerAddr) -> Result<Connected, Box<Check>> {
    let (host, port) = (server.host(), server.port());
    let address = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let errors = ServerErrors::default();
    let heard = errors.clone();
    let usable = authenticated(settings).await;
    let (_, options) = usable.map_err(|error| Box::new(unusable(&address, &error)))?;
    let options = options
        .name("confab check")
        .connection_timeout(CONNECT_TIMEOUT)
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                heard.add(text);
            }
            ready(())
        });
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect(server));
    let connected = connecting.await.unwrap_or_else(|_late| {
        Err(ConnectError::from(std::io::Error::from(
            std::io::ErrorKind::TimedOut,
        )))
    });
    match connected {
        Ok(client) => Ok(Connected {
            address,
            client,
            errors,
        }),
        Err(error) => Err(Box::new(unreached(&error, &address))),
    }
}

fn unreached(error: &ConnectError, address: &str) -> Check {
    let (found, remedy) = match error.kind() {
        ConnectErrorKind::Dns => (
            "the name of the NATS server cannot be resolved",
            "correct the host in CONFAB_NATS_URL, or the name service",
        ),
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => (
            "NATS refuses the user",
            "correct user, password or credentials (CONFAB_NATS_USER and what stands beside it in --help), or the server's users",
        ),
        ConnectErrorKind::Tls => (
            "the encrypted connection to NATS fails",
            "compare the server's certificate and whether it wants TLS with the settings of NATS in --help",
        ),
        ConnectErrorKind::ServerParse => (
            "the URL of NATS cannot be read",
            "write CONFAB_NATS_URL as nats://host:4222",
        ),
        ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => (
            "NATS is not reached",
            "start nats-server, or correct host and port in CONFAB_NATS_URL: the port for clients is 4222 by default",
        ),
    };
    Check::fail("nats", address, found, remedy).because(error)
}

/// A server by itself has no place for more than one replica.
fn replicas(cluster: Option<&str>, settings: &Settings, address: &str) -> Option<Check> {
    let wanted = settings.nats_replicas;
    (wanted > 1 && cluster.is_none()).then(|| {
        let found =
            format!("CONFAB_NATS_REPLICAS is {wanted}, and the NATS server is in no cluster");
        let remedy =
            "set CONFAB_NATS_REPLICAS to 1, or let CONFAB_NATS_URL name the servers of a cluster";
        Check::fail("nats.replicas", address, found, remedy)
    })
}

fn is_supported(version: &str, address: &str) -> Check {
    let (major, minor) = MIN_VERSION;
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let text = format!("nats-server is {version}");
    if found >= MIN_VERSION {
        return Check::ok("nats.version", address, text);
    }
    let found = format!("{text}, and confab needs {major}.{minor} or later");
    let remedy = format!(
        "install nats-server {major}.{minor} or later; distributions often have older ones"
    );
    Check::fail("nats.version", address, found, remedy)
}

fn payload(bytes: usize, address: &str) -> Check {
    let needed = limits::MAX_RPC_BYTES + HEADER_BYTES;
    let found = format!("the largest message (max_payload) is {bytes} bytes");
    if bytes >= needed {
        return Check::ok("nats.payload", address, found);
    }
    let found = format!("{found}, and confab's are up to {needed}");
    let remedy = "set max_payload in the server's configuration to 1MB, its default, and restart nats-server: else pages of history and \
                  large messages fail";
    Check::fail("nats.payload", address, found, remedy)
}

#[cfg(test)]
mod tests;
