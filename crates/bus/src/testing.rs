//! What the tests of this crate share: a NATS server of their own, and connections to it.

use std::path::Path;
use std::time::Duration;

use confab_stack::{Nats, NatsSettings, Programs, free_port};
use tempfile::TempDir;

use crate::connection::{Bus, Settings};

/// Time that anything may take, on a machine that does other things.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A NATS server that ends with the test.
pub(crate) struct NatsServer {
    pub(crate) nats: Nats,
    folder: TempDir,
}

impl NatsServer {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// One with more in its configuration.
    pub(crate) async fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        configure(&folder, config);
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
        let settings = NatsSettings {
            folder: folder.path().join("nats"),
            port: free_port().unwrap(),
            monitor: None,
        };
        let nats = Nats::start(&Programs::find(&tools).unwrap(), settings).await;
        Self {
            nats: nats.unwrap(),
            folder,
        }
    }

    /// The same server with something else there, which it takes a moment later.
    pub(crate) fn reconfigure(&mut self, config: &str) {
        configure(&self.folder, config);
        self.nats.reload().unwrap();
    }

    pub(crate) async fn connect(&self) -> Bus {
        let settings = Settings {
            events_max_age: 60,
            events_max_bytes: 1 << 20,
            ..Settings::of_server(self.nats.url())
        };
        let bus = Bus::connect(&settings, "test").await.unwrap();
        let mut link = bus.connection();
        let connected = link.wait_for(|link| link.connected);
        let connected = tokio::time::timeout(TEST_TIMEOUT, connected).await;
        connected.unwrap().unwrap();
        bus
    }
}

fn configure(folder: &TempDir, config: &str) {
    let folder = folder.path().join("nats");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("extra.conf"), config).unwrap();
}
