//! The event stream, which a test can make refuse publishes.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy};

use super::{Cluster, eventually};

const STREAM_NAME: &str = "CONFAB_EVENTS";
/// How long the stream may be away, on a machine that runs other tests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream that refuses events, so that the feed falls behind the log.
pub(crate) struct RefusingStream {
    jetstream: jetstream::Context,
    config: Config,
}

impl RefusingStream {
    /// Lets the stream refuse every event from now on.
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let client = async_nats::connect(cluster.nats.url()).await.unwrap();
        let jetstream = jetstream::new(client);
        let config = eventually("a stream that refuses", WAIT_TIMEOUT, async || {
            // One that was erased is made anew by the workers.
            let stream = jetstream.get_stream(STREAM_NAME).await.ok()?;
            let config = stream.cached_info().config.clone();
            let refusing = Config {
                max_messages: 1,
                discard: DiscardPolicy::New,
                ..config.clone()
            };
            let updated = jetstream.update_stream(&refusing).await;
            updated.ok().map(|_| config)
        });
        let config = config.await;
        Self { jetstream, config }
    }

    /// Lets it take events again.
    pub(crate) async fn accept(self) {
        self.jetstream.update_stream(&self.config).await.unwrap();
    }
}
