use std::path::PathBuf;

use confab_stack::{Nats, NatsSettings, Programs, free_port};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::testing::TEST_TIMEOUT;

mod accounts;
mod authentication;
mod denials;
mod domain;
mod rotation;
mod tls;

/// Interval at which a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What nats-server logs of a client that it does not take.
const REFUSED_LINE: &str = "authentication error";

/// A NATS server that wants something of its clients.
struct Strict {
    nats: Nats,
    folder: TempDir,
}

impl Strict {
    /// One with `extra` in its configuration.
    async fn start(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        configure(&folder, extra);
        let settings = NatsSettings {
            folder: folder.path().join("nats"),
            port: free_port().unwrap(),
            monitor: None,
        };
        let nats = Nats::start(&programs(), settings).await.unwrap();
        Self { nats, folder }
    }

    /// The same server with other wishes; whoever was connected no longer is.
    async fn restart(&mut self, extra: &str) {
        configure(&self.folder, extra);
        self.nats.restart().await.unwrap();
    }

    /// A file beside the server's.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn settings(&self) -> Settings {
        Settings::of_server(self.nats.url())
    }

    /// The settings of a URL with `before` in front of the host.
    fn settings_with(&self, before: &str) -> Settings {
        Settings::of_server(format!("nats://{before}@127.0.0.1:{}", self.nats.port()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.nats.log()).unwrap_or_default()
    }

    /// Waits until the server has logged `what` behind the first `from` bytes of its log.
    async fn logs(&self, what: &str, from: usize) {
        let logged = async {
            while !self.log().get(from..).is_some_and(|new| new.contains(what)) {
                sleep(POLL_INTERVAL).await;
            }
        };
        let logged = timeout(TEST_TIMEOUT, logged).await;
        logged.unwrap_or_else(|_late| panic!("no {what:?} in {}", self.log()));
    }

    async fn takes(&self, settings: &Settings) -> Bus {
        let bus = Bus::connect(settings, "test").await.unwrap();
        is_connected(&bus).await;
        bus
    }

    /// Checks that the server does not take a client of `settings`, and logs `what` of it.
    async fn refuses(&self, settings: &Settings, what: &str) {
        let from = self.log().len();
        let bus = Bus::connect(settings, "test").await.unwrap();
        self.logs(what, from).await;
        assert!(!bus.is_connected());
        assert_eq!(*bus.connection().borrow(), Link::default());
    }
}

fn programs() -> Programs {
    let tools = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
    Programs::find(&tools).unwrap()
}

fn configure(folder: &TempDir, extra: &str) {
    let folder = folder.path().join("nats");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("extra.conf"), extra).unwrap();
}

async fn is_connected(bus: &Bus) {
    link_is(bus, |link| link.connected).await;
}

async fn link_is(bus: &Bus, condition: impl FnMut(&Link) -> bool) {
    let mut link = bus.connection();
    let reached = timeout(TEST_TIMEOUT, link.wait_for(condition)).await;
    reached.expect("the link in time").unwrap();
}

#[test]
fn reconnect_delay_starts_short_and_is_bounded() {
    assert!(delay(1, 0.0) >= Duration::from_millis(100));
    for attempts in 0..100 {
        assert!(delay(attempts, 1.0) <= Duration::from_secs(2));
    }
}
