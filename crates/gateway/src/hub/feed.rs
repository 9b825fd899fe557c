//! Reads the feed for the hub: begins it, says when it began anew, hands each shard what is its own, and what the stream kept of before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::feed::{
    Backfill, BackfillEnd, BackfillItem, BackfillWindow, Feed, FeedEvent, FeedItem,
};
use confab_protocol::condition::Monitor;
use confab_protocol::ids::ConversationId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::conditions::WINDOW_CONDITION;
use crate::hub::actor::FromFeed;
use crate::hub::{FIRST_EPOCH, Shards};
use crate::metrics::FeedMetrics;

/// How soon a shard that missed events may begin anew.
const MEND_PERIOD: Duration = Duration::from_millis(250);
/// Events between the reader and a shard, and their bytes.
const BUFFER_EVENTS: usize = 4096;
const BUFFER_BYTES: u32 = 32 * 1024 * 1024;
/// How soon the past is tried again that could not be read.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How many events may wait for a shard while events of the past are put behind them: what is new has the rest.
const MAX_WAITING_EVENTS: usize = 256;
/// How soon a shard is looked at again while it has more to do than that.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The queues from the reader to the shards, each bounded in events and in bytes. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ToHub {
    shards: Shards,
    queues: Arc<[Queue]>,
    /// The last epoch that some shard was given.
    epoch: watch::Sender<u64>,
    /// Told when a queue begins to be broken.
    broke: Arc<Notify>,
    /// How many queues are.
    broken: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<FromFeed>,
    room: Arc<Semaphore>,
    /// Whether an event found no room, and the shard was not told yet.
    is_broken: AtomicBool,
}

/// An event as it comes to a shard.
#[derive(Debug)]
pub(crate) struct FeedArrival {
    pub(crate) event: FeedEvent,
    /// When it was read.
    pub(crate) read: Instant,
    /// Its bytes' room in the queue, until it is handed on.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl ToHub {
    /// The queues' ends, and where the coordinator learns of the last epoch.
    pub(crate) fn new(
        shards: Shards,
        broken: Arc<AtomicUsize>,
    ) -> (Self, Vec<mpsc::Receiver<FromFeed>>, watch::Receiver<u64>) {
        let (queues, from_feed): (Vec<_>, Vec<_>) =
            std::iter::repeat_with(|| mpsc::channel(BUFFER_EVENTS))
                .take(shards.count())
                .unzip();
        let queues = queues.into_iter().map(|queue| Queue {
            queue,
            room: Arc::new(Semaphore::new(BUFFER_BYTES as usize)),
            is_broken: AtomicBool::new(false),
        });
        let (epoch, epochs) = watch::channel(FIRST_EPOCH);
        let hub = Self {
            shards,
            queues: queues.collect(),
            epoch,
            broke: Arc::default(),
            broken,
        };
        (hub, from_feed, epochs)
    }

    fn queue_of(&self, id: ConversationId) -> Option<(usize, &Queue)> {
        let shard = self.shards.shard_of(id);
        Some((shard, self.queues.get(shard)?))
    }

    fn next_epoch(&self) -> u64 {
        self.epoch.send_modify(|epoch| *epoch += 1);
        *self.epoch.borrow()
    }

    /// The feed began anew for all shards. Says whether the hub is still there.
    async fn begin(&self) -> bool {
        let epoch = self.next_epoch();
        for queue in self.queues.iter() {
            let is_there = if self.shards == Shards::SINGLE {
                queue.send(FromFeed::Began(epoch)).await
            } else {
                self.tell_or_break(queue, epoch)
            };
            if !is_there {
                return false;
            }
        }
        true
    }

    /// A shard misses something from now on, until it begins anew.
    fn breaks(&self, queue: &Queue) {
        if !queue.is_broken.swap(true, Ordering::AcqRel) {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        self.broke.notify_one();
    }

    /// Tells a shard that the feed began anew; one without room learns it when it has some. Says whether it is still there.
    fn tell_or_break(&self, queue: &Queue, epoch: u64) -> bool {
        match queue.queue.try_send(FromFeed::Began(epoch)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.breaks(queue);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Hands a new event to its shard: one that is alone is waited for, of several none waits for another; what finds no room
    /// is missed by that shard alone. Says whether the hub is still there.
    pub(crate) async fn hand_on(
        &self,
        event: FeedEvent,
        pending: u64,
        metrics: &FeedMetrics,
    ) -> bool {
        let Some((shard, queue)) = self.queue_of(event.conversation) else {
            return false;
        };
        metrics.pending(pending);
        let mut arrival = FeedArrival {
            event,
            read: Instant::now(),
            room: None,
        };
        if self.shards == Shards::SINGLE {
            metrics.lag(shard).read(arrival.read);
            arrival.room = queue.room(&arrival.event).await;
            return queue.send(FromFeed::Event(arrival)).await;
        }
        if queue.is_broken() {
            return true;
        }
        let room = queue.try_room(&arrival.event);
        match (room, queue.queue.try_reserve()) {
            (Some(room), Ok(place)) => {
                metrics.lag(shard).read(arrival.read);
                arrival.room = Some(room);
                place.send(FromFeed::Event(arrival));
            }
            (_, Err(mpsc::error::TrySendError::Closed(()))) => return false,
            (None, _) | (_, Err(mpsc::error::TrySendError::Full(()))) => {
                self.breaks(queue);
                metrics.shard_full();
                warn!(
                    shard,
                    "a shard of the hub is full: it misses events, and asks workers for them"
                );
            }
        }
        true
    }

    /// Lets shards that missed events begin anew, each when half of its queue is free.
    pub(crate) async fn mend(&self) {
        loop {
            self.broke.notified().await;
            while self.queues.iter().any(Queue::is_broken) {
                // Each beginning asks for every user again, so that none follows another at once.
                tokio::time::sleep(MEND_PERIOD).await;
                let free = |queue: &&Queue| queue.is_broken() && queue.is_half_free();
                for queue in self.queues.iter().filter(free) {
                    // First nothing more is missed; then what was missed is asked for.
                    queue.is_broken.store(false, Ordering::Release);
                    if !self.tell_or_break(queue, self.next_epoch()) {
                        return;
                    }
                    self.broken.fetch_sub(1, Ordering::Relaxed);
                    info!("a shard of the hub has room again");
                }
            }
        }
    }
}

impl Queue {
    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Waits until there is room for an event's bytes.
    async fn room(&self, event: &FeedEvent) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(bytes(event)).await.ok()
    }

    fn try_room(&self, event: &FeedEvent) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room);
        room.try_acquire_many_owned(bytes(event)).ok()
    }

    /// Puts something behind what waits; says whether the shard is still there.
    async fn send(&self, item: FromFeed) -> bool {
        self.queue.send(item).await.is_ok()
    }

    fn is_half_free(&self) -> bool {
        self.waiting() <= BUFFER_EVENTS / 2
            && self.room.available_permits() >= BUFFER_BYTES as usize / 2
    }

    fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// The room that an event takes in a queue; one that is larger than all of it goes alone.
fn bytes(event: &FeedEvent) -> u32 {
    let bytes = u32::try_from(event.json.len()).unwrap_or(u32::MAX);
    bytes.min(BUFFER_BYTES)
}

/// Reads the feed into `hub` until `stop`, however often NATS goes away meanwhile; beside it, once, what the stream kept
/// of before, as far as `reach`.
pub(crate) async fn run(
    bus: Bus,
    hub: ToHub,
    reach: Option<BackfillWindow>,
    metrics: FeedMetrics,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(Box::pin(read(bus, hub, reach, metrics)))
        .await;
}

async fn read(bus: Bus, hub: ToHub, reach: Option<BackfillWindow>, metrics: FeedMetrics) {
    let feed = Feed::begin(&bus).await;
    metrics.reconciling();
    if hub.begin().await {
        // The feed was opened before the backfill, so that they overlap.
        tokio::join!(
            follow(feed, &hub, &metrics),
            fill(&bus, &hub, reach, &metrics),
            hub.mend(),
        );
    }
}

async fn follow(mut feed: Feed, hub: &ToHub, metrics: &FeedMetrics) {
    loop {
        let is_there = match feed.next().await {
            FeedItem::Event(event, pending) => hub.hand_on(event, pending, metrics).await,
            // Not ready: no events arrive until the consumer is made again.
            FeedItem::Stalled => {
                metrics.reconciling();
                true
            }
            FeedItem::Broken(kind) => {
                metrics.broke(kind);
                metrics.reconciling();
                hub.begin().await
            }
            FeedItem::Malformed => {
                malformed(metrics, 1);
                true
            }
        };
        if !is_there {
            return;
        }
    }
}

/// Hands over the past, and that it has ended.
async fn fill(bus: &Bus, hub: &ToHub, reach: Option<BackfillWindow>, metrics: &FeedMetrics) {
    if let Some(reach) = reach {
        let (end, events) = pass_on(bus, hub, reach, metrics).await;
        match end {
            BackfillEnd::Whole => info!(events, "the replay window is filled"),
            BackfillEnd::Erased | BackfillEnd::Unreadable => {
                warn!(events, ?end, "the replay window has not all of the past");
            }
        }
    }
    for queue in hub.queues.iter() {
        hand_over(queue, FromFeed::Filled).await;
    }
}

async fn pass_on(
    bus: &Bus,
    hub: &ToHub,
    reach: BackfillWindow,
    metrics: &FeedMetrics,
) -> (BackfillEnd, u64) {
    let mut past = open_past(bus, reach).await;
    let mut count = 0;
    loop {
        match past.next().await {
            BackfillItem::Batch(events, bad) => {
                let read = u64::try_from(events.len()).unwrap_or(u64::MAX);
                count += read;
                metrics.past(read);
                malformed(metrics, bad);
                for event in events {
                    let Some((_, queue)) = hub.queue_of(event.conversation) else {
                        return (BackfillEnd::Unreadable, count);
                    };
                    let room = queue.room(&event).await;
                    if !hand_over(queue, FromFeed::Past(event, room)).await {
                        return (BackfillEnd::Unreadable, count);
                    }
                }
            }
            BackfillItem::End(end) => return (end, count),
        }
    }
}

/// Hands over what is not new, behind few others only, so that what is new does not wait for it. Says whether the shard is
/// still there.
async fn hand_over(to: &Queue, item: FromFeed) -> bool {
    while to.waiting() > MAX_WAITING_EVENTS && !to.queue.is_closed() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    to.send(item).await
}

fn malformed(metrics: &FeedMetrics, count: u64) {
    if metrics.malformed(count) {
        warn!("a message of the feed is no event; such are skipped and counted");
    }
}

async fn open_past(bus: &Bus, reach: BackfillWindow) -> Backfill {
    let monitor = Monitor::new(WINDOW_CONDITION);
    loop {
        match Backfill::open(bus, reach).await {
            Ok(past) => {
                monitor.holds();
                return past;
            }
            Err(error) => bus.failed(&monitor, &error),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

#[cfg(test)]
mod tests;
