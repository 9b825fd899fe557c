//! What async-nats tells of the connection: its state for the process, and its faults for the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Event, ServerAddr};
use confab_protocol::condition::Monitor;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Link, Settings, authenticated};
use crate::conditions::NATS_CONDITION;

/// Time that an address may take to be reached where it is looked why NATS is not connected.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// The time between two lines about the same error of a server.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Errors of servers that are remembered.
const MAX_REMEMBERED: usize = 32;
const SLOW_SUBSCRIBER_LINE: &str = "NATS messages were dropped: a subscriber was slow";

/// Follows the connection.
#[derive(Debug)]
pub(super) struct Observer {
    states: watch::Sender<Link>,
    connection: Monitor,
    settings: Settings,
    /// Host and port of each server that the settings name.
    addresses: Vec<(String, u16)>,
    told: Mutex<LoggedErrors>,
}

/// The errors of servers that were told lately.
#[derive(Debug, Default)]
struct LoggedErrors(Vec<(String, Instant)>);

impl Observer {
    pub(super) fn new(states: watch::Sender<Link>, settings: &Settings) -> Self {
        let urls = settings.nats_url.iter();
        let servers = urls.filter_map(|url| url.parse::<ServerAddr>().ok());
        let addresses = servers.map(|server| (server.host().to_owned(), server.port()));
        Self {
            states,
            connection: Monitor::new(NATS_CONDITION),
            settings: settings.clone(),
            addresses: addresses.collect(),
            told: Mutex::default(),
        }
    }

    /// Heeds an event. Where a line is due that NATS is away, the next event waits until it is known why, for a bounded time.
    pub(super) async fn observe(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.states.send_modify(|link| {
                    *link = Link {
                        connected: true,
                        epoch: link.epoch + 1,
                    }
                });
                if self.connection.is_failing() {
                    self.connection.holds();
                } else {
                    info!("connected to NATS");
                }
            }
            Event::Disconnected | Event::Closed => {
                self.states.send_modify(|link| link.connected = false);
                self.lost().await;
            }
            Event::SlowConsumer(_) => {
                // The library tells it for each message that it drops.
                if self.is_news(SLOW_SUBSCRIBER_LINE) {
                    warn!("{SLOW_SUBSCRIBER_LINE}");
                }
                self.states.send_modify(|link| link.epoch += 1);
            }
            Event::LameDuckMode | Event::Draining => info!(%event, "NATS server is leaving"),
            Event::ClientError(error) => self.away(&error.to_string()).await,
            Event::ServerError(error) => {
                let error = error.to_string();
                if self.is_news(&error) {
                    warn!(error, "NATS reported an error");
                }
            }
        }
    }

    /// Notes that the connection ended where no server can be reached. Where one can, the library connects to it, and tells when it cannot.
    async fn lost(&self) {
        if let Some(cause) = self.unreachable().await {
            let reason = format_args!("the connection was lost: {cause}");
            self.connection.failed_for(&reason);
        }
    }

    /// Notes that NATS is away, with what keeps this process from connecting where that can be seen: the library tells no cause.
    async fn away(&self, reason: &str) {
        if !self.connection.is_line_due() {
            return self.connection.failed_for(&reason);
        }
        match self.cause().await {
            Some(cause) => self
                .connection
                .failed_for(&format_args!("{reason}: {cause}")),
            None => self.connection.failed_for(&reason),
        }
    }

    /// Returns what keeps this process from connecting: files that cannot be used any more, or servers of which none can be reached.
    async fn cause(&self) -> Option<String> {
        match authenticated(&self.settings).await {
            Ok(_) => self.unreachable().await,
            Err(error) => Some(error.to_string()),
        }
    }

    /// Why no server can be reached; none where one can.
    async fn unreachable(&self) -> Option<String> {
        let mut causes = Vec::with_capacity(self.addresses.len());
        for (host, port) in &self.addresses {
            let connecting = TcpStream::connect((host.as_str(), *port));
            match timeout(PROBE_TIMEOUT, connecting).await {
                Ok(Ok(_reached)) => return None,
                Ok(Err(error)) => causes.push(format!("{host}:{port}: {error}")),
                Err(_late) => causes.push(format!("{host}:{port}: no answer")),
            }
        }
        (!causes.is_empty()).then(|| causes.join(", "))
    }

    fn is_news(&self, error: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_news(error, Instant::now())
    }
}

impl LoggedErrors {
    /// Returns true if an error was not told within a minute, which it is from now on.
    fn is_news(&mut self, error: &str, now: Instant) -> bool {
        self.0
            .retain(|(_, at)| now.saturating_duration_since(*at) < REPEAT_INTERVAL);
        let is_news = self.0.len() < MAX_REMEMBERED && self.0.iter().all(|(told, _)| told != error);
        if is_news {
            self.0.push((error.to_owned(), now));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_error_is_told_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = LoggedErrors::default();
        assert!(told.is_news("permissions violation", at(0)));
        assert!(!told.is_news("permissions violation", at(59)));
        assert!(told.is_news("another", at(59)));
        assert!(told.is_news("permissions violation", at(60)));
    }

    #[test]
    fn errors_without_end_are_told_boundedly() {
        let mut told = LoggedErrors::default();
        let now = Instant::now();
        let news = (0..100).filter(|n| told.is_news(&n.to_string(), now));
        assert_eq!(news.count(), MAX_REMEMBERED);
    }

    fn of(url: String) -> Settings {
        Settings::of_server(url)
    }

    /// The library says no more than that authentication failed.
    #[tokio::test]
    async fn cause_names_a_file_that_is_gone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret").unwrap();
        let mut settings = of(format!("nats://{}", listener.local_addr().unwrap()));
        settings.auth.nats_token_file = Some(path.clone());
        let observer = Observer::new(watch::Sender::new(Link::default()), &settings);
        assert_eq!(observer.cause().await, None);
        std::fs::remove_file(&path).unwrap();
        let cause = observer.cause().await.unwrap();
        let words = format!("cannot read {}", path.display());
        assert!(cause.contains(&words), "{cause}");
    }

    #[tokio::test]
    async fn dropped_messages_are_told_once_a_minute() {
        let states = watch::Sender::new(Link::default());
        let link = states.subscribe();
        let observer = Observer::new(states, &of(String::new()));
        for _ in 0..3 {
            observer.observe(&Event::SlowConsumer(1)).await;
        }
        assert_eq!(link.borrow().epoch, 3, "each is a gap");
        assert!(!observer.is_news(SLOW_SUBSCRIBER_LINE), "it was told");
    }

    #[tokio::test]
    async fn cause_names_the_address_and_hides_the_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = of(format!("nats://user:secret@127.0.0.1:{port}"));
        let observer = Observer::new(watch::Sender::new(Link::default()), &settings);
        assert_eq!(observer.cause().await, None);
        drop(listener);
        let cause = observer.cause().await.unwrap();
        assert!(
            cause.starts_with(&format!("127.0.0.1:{port}: Connection refused")),
            "{cause}"
        );
        assert!(!cause.contains("secret"), "{cause}");
    }
}
