//! What the tests of this crate share: a NATS server of their own, and connections to it.

use std::path::Path;
use std::time::Duration;

use confab_stack::{Nats, NatsSettings, Programs, free_port};
use tempfile::TempDir;

use crate::connection::{Bus, Settings};

/// How long anything may take, on a machine that does other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A NATS server that ends with the test.
pub(crate) struct Server {
    pub(crate) nats: Nats,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
        let settings = NatsSettings {
            folder: folder.path().join("nats"),
            port: free_port().unwrap(),
            monitor: None,
        };
        let nats = Nats::start(&Programs::find(&tools).unwrap(), settings).await;
        Self {
            nats: nats.unwrap(),
            _folder: folder,
        }
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
        let connected = tokio::time::timeout(SOON, connected).await;
        connected.unwrap().unwrap();
        bus
    }
}
