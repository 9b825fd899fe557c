//! Reads the feed for the hub: begins it, says when it began anew, and hands over what the stream kept of before.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::feed::{Feed, FeedItem, Past, PastEnd, PastItem, Reach};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::fanout::FromFeed;
use crate::metrics::FeedMetrics;

/// Events between the reader and the hub.
pub(crate) const BUFFER: usize = 4096;
/// How soon a feed that could not begin is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How many events may wait for the hub while events of the past are put behind them: what is new has the rest.
const AHEAD: usize = 256;
/// How soon the hub is looked at again while it has more to do than that.
const GLANCE: Duration = Duration::from_millis(1);

/// Reads the feed into `hub` until `stop`, however often NATS goes away meanwhile; beside it, once, what the stream kept
/// of before, as far as `reach`.
pub(crate) async fn run(
    bus: Bus,
    hub: mpsc::Sender<FromFeed>,
    reach: Option<Reach>,
    metrics: FeedMetrics,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(Box::pin(read(bus, hub, reach, metrics)))
        .await;
}

async fn read(bus: Bus, hub: mpsc::Sender<FromFeed>, reach: Option<Reach>, metrics: FeedMetrics) {
    let feed = open(&bus).await;
    if hub.send(FromFeed::Began).await.is_ok() {
        // What the past does not reach, the feed has: it was open first.
        tokio::join!(
            follow(feed, &hub, &metrics),
            fill(&bus, &hub, reach, &metrics)
        );
    }
}

async fn follow(mut feed: Feed, hub: &mpsc::Sender<FromFeed>, metrics: &FeedMetrics) {
    loop {
        let next = match feed.next().await {
            FeedItem::Event(event, pending) => {
                let read = Instant::now();
                metrics.hub_lag().read(read);
                FromFeed::Event(event, pending, read)
            }
            FeedItem::Broken(kind) => {
                metrics.broken(kind);
                FromFeed::Began
            }
            FeedItem::Malformed => {
                malformed(metrics, 1);
                continue;
            }
        };
        if hub.send(next).await.is_err() {
            return;
        }
    }
}

/// Hands over the past, and that it has ended.
async fn fill(
    bus: &Bus,
    hub: &mpsc::Sender<FromFeed>,
    reach: Option<Reach>,
    metrics: &FeedMetrics,
) {
    if let Some(reach) = reach {
        let (end, events) = pass_on(bus, hub, reach, metrics).await;
        match end {
            PastEnd::Whole => info!(events, "the replay window is filled"),
            PastEnd::Erased | PastEnd::Unreadable => {
                warn!(events, ?end, "the replay window has not all of the past");
            }
        }
    }
    hand_over(hub, FromFeed::Filled).await;
}

async fn pass_on(
    bus: &Bus,
    hub: &mpsc::Sender<FromFeed>,
    reach: Reach,
    metrics: &FeedMetrics,
) -> (PastEnd, u64) {
    let mut past = open_past(bus, reach).await;
    let mut count = 0;
    loop {
        match past.next().await {
            PastItem::Run(events, bad) => {
                let read = u64::try_from(events.len()).unwrap_or(u64::MAX);
                count += read;
                metrics.past(read);
                malformed(metrics, bad);
                for event in events {
                    if !hand_over(hub, FromFeed::Past(event)).await {
                        return (PastEnd::Unreadable, count);
                    }
                }
            }
            PastItem::End(end) => return (end, count),
        }
    }
}

/// Hands over what is not new, behind few others only, so that what is new does not wait for it. Says whether the hub is
/// still there.
async fn hand_over(hub: &mpsc::Sender<FromFeed>, item: FromFeed) -> bool {
    while hub.max_capacity() - hub.capacity() > AHEAD && !hub.is_closed() {
        tokio::time::sleep(GLANCE).await;
    }
    hub.send(item).await.is_ok()
}

fn malformed(metrics: &FeedMetrics, count: u64) {
    if metrics.malformed(count) {
        warn!("a message of the feed is no event; such are skipped and counted");
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

async fn open_past(bus: &Bus, reach: Reach) -> Past {
    loop {
        match Past::open(bus, reach).await {
            Ok(past) => return past,
            Err(error) => debug!(%error, "the past cannot be read yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests;
