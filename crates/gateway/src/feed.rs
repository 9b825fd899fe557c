//! Reads the feed for the hub: begins it, says when it began anew, and hands over what the stream kept of before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::feed::{Feed, FeedEvent, FeedItem, Past, PastEnd, PastItem, Reach};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::fanout::FromFeed;
use crate::metrics::FeedMetrics;

/// Events between the reader and the hub, and their bytes.
const BUFFER: usize = 4096;
const BUFFER_BYTES: u32 = 32 * 1024 * 1024;
/// How soon a feed that could not begin is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How many events may wait for the hub while events of the past are put behind them: what is new has the rest.
const AHEAD: usize = 256;
/// How soon the hub is looked at again while it has more to do than that.
const GLANCE: Duration = Duration::from_millis(1);

/// The queue from the reader to the hub, bounded in events and in bytes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ToHub {
    queue: mpsc::Sender<FromFeed>,
    room: Arc<Semaphore>,
}

/// An event as it comes to the hub.
#[derive(Debug)]
pub(crate) struct FeedArrival {
    pub(crate) event: FeedEvent,
    /// How many wait behind it in the stream.
    pub(crate) pending: u64,
    /// When it was read.
    pub(crate) read: Instant,
    /// Its bytes' room in the queue, until it is handed on.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl ToHub {
    /// The queue's ends.
    pub(crate) fn new() -> (Self, mpsc::Receiver<FromFeed>) {
        let (queue, from_feed) = mpsc::channel(BUFFER);
        let room = Arc::new(Semaphore::new(BUFFER_BYTES as usize));
        (Self { queue, room }, from_feed)
    }

    /// Waits until there is room for an event's bytes.
    async fn room(&self, event: &FeedEvent) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(event.json.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(bytes.min(BUFFER_BYTES)).await.ok()
    }

    /// Puts something behind what waits; says whether the hub is still there.
    async fn send(&self, item: FromFeed) -> bool {
        self.queue.send(item).await.is_ok()
    }

    fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Reads the feed into `hub` until `stop`, however often NATS goes away meanwhile; beside it, once, what the stream kept
/// of before, as far as `reach`.
pub(crate) async fn run(
    bus: Bus,
    hub: ToHub,
    reach: Option<Reach>,
    metrics: FeedMetrics,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(Box::pin(read(bus, hub, reach, metrics)))
        .await;
}

async fn read(bus: Bus, hub: ToHub, reach: Option<Reach>, metrics: FeedMetrics) {
    let feed = open(&bus).await;
    if hub.send(FromFeed::Began).await {
        // What the past does not reach, the feed has: it was open first.
        tokio::join!(
            follow(feed, &hub, &metrics),
            fill(&bus, &hub, reach, &metrics)
        );
    }
}

async fn follow(mut feed: Feed, hub: &ToHub, metrics: &FeedMetrics) {
    loop {
        let next = match feed.next().await {
            FeedItem::Event(event, pending) => {
                let read = Instant::now();
                metrics.hub_lag().read(read);
                let room = hub.room(&event).await;
                FromFeed::Event(FeedArrival {
                    event,
                    pending,
                    read,
                    room,
                })
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
        if !hub.send(next).await {
            return;
        }
    }
}

/// Hands over the past, and that it has ended.
async fn fill(bus: &Bus, hub: &ToHub, reach: Option<Reach>, metrics: &FeedMetrics) {
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

async fn pass_on(bus: &Bus, hub: &ToHub, reach: Reach, metrics: &FeedMetrics) -> (PastEnd, u64) {
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
                    let room = hub.room(&event).await;
                    if !hand_over(hub, FromFeed::Past(event, room)).await {
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
async fn hand_over(hub: &ToHub, item: FromFeed) -> bool {
    while hub.waiting() > AHEAD && !hub.queue.is_closed() {
        tokio::time::sleep(GLANCE).await;
    }
    hub.send(item).await
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
