//! Reads the feed for the hub: begins it, and says when it began anew.

use std::time::Duration;

use confab_bus::Bus;
use confab_bus::feed::{Feed, FeedItem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::fanout::FromFeed;
use crate::metrics::FeedMetrics;

/// Events between the reader and the hub.
pub(crate) const BUFFER: usize = 4096;
/// How soon a feed that could not begin is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// Reads the feed into `hub` until `stop`, however often NATS goes away meanwhile.
pub(crate) async fn run(
    bus: Bus,
    hub: mpsc::Sender<FromFeed>,
    metrics: FeedMetrics,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(Box::pin(read(bus, hub, metrics)))
        .await;
}

async fn read(bus: Bus, hub: mpsc::Sender<FromFeed>, metrics: FeedMetrics) {
    let mut feed = open(&bus).await;
    let mut next = FromFeed::Began;
    while hub.send(next).await.is_ok() {
        next = loop {
            match feed.next().await {
                FeedItem::Event(event, pending) => break FromFeed::Event(event, pending),
                FeedItem::Broken(kind) => {
                    metrics.broken(kind);
                    break FromFeed::Began;
                }
                FeedItem::Malformed => {
                    if metrics.malformed() {
                        warn!("a message of the feed is no event; such are skipped and counted");
                    }
                }
            }
        };
    }
}

async fn open(bus: &Bus) -> Feed {
    loop {
        match Feed::open(bus).await {
            Ok(feed) => return feed,
            Err(error) => debug!(%error, "the feed cannot begin yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
