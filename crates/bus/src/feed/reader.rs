//! The loop that reads the stream, looks for breaks, and begins anew after one.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use bytes::Bytes;
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use futures_util::StreamExt as _;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, warn};
use uuid::Uuid;

use super::watch::{ReadProgress, Stall, StreamPosition};
use super::{FeedEvent, StreamDiscontinuity};
use crate::conditions::FEED_CONDITION;
use crate::connection::{Bus, Link};
use crate::error::BusError;
use crate::subjects;

/// Interval at which the stream is compared with what was read, when nothing else asks for it.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
/// Delay after which a comparison that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Time after a start for which discontinuities that others announce are gathered: each gateway that finds one announces it.
const GATHER_WINDOW: Duration = Duration::from_secs(2);

/// The whole feed, read by one ordered consumer.
pub struct Feed {
    bus: Bus,
    messages: Ordered,
    position: StreamPosition,
    /// True if the next message must be at the position + 1.
    contiguous: bool,
    link: tokio::sync::watch::Receiver<Link>,
    breaks: Subscriber,
    /// What this reader's own announcements carry, so that it does not heed them.
    origin: Uuid,
    /// When the reading last began; announcements soon after are heeded together, later.
    began: Instant,
    announced: bool,
    checks: Interval,
    stall: Stall,
    /// A break that was reported and is not recovered yet.
    breaking: Option<StreamDiscontinuity>,
    monitor: Arc<Monitor>,
}

/// An item of the feed.
#[derive(Debug)]
pub enum FeedItem {
    /// An event, with how many wait behind it in the stream.
    Event(FeedEvent, u64),
    /// Something that is no event of ours; it is skipped.
    Malformed,
    /// The consumer gives nothing of what the stream has. Behind this the feed breaks, as soon as another consumer can be made.
    Stalled,
    /// The feed broke and begins anew with what is new: everything before must be read from a worker.
    Broken(StreamDiscontinuity),
}

enum FeedWake {
    Message(Option<Result<Box<Message>, String>>),
    Check,
    Announced(Bytes),
    Due,
}

impl Feed {
    /// Begins with what is new, however long that takes; the stream is made where there is none.
    pub async fn begin(bus: &Bus) -> Self {
        let monitor = Arc::new(Monitor::new(FEED_CONDITION));
        loop {
            match Self::open(bus, &monitor).await {
                Ok(feed) => return feed,
                Err(error) => bus.failed(&monitor, &error),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn open(bus: &Bus, monitor: &Arc<Monitor>) -> Result<Self, BusError> {
        let breaks = bus
            .client
            .subscribe(subjects::DISCONTINUITY_SUBJECT)
            .await
            .map_err(BusError::nats("listen for breaks"))?;
        let mut link = bus.connection();
        link.mark_unchanged();
        let (messages, position) = begin(bus).await?;
        monitor.holds();
        let mut checks =
            tokio::time::interval_at(Instant::now() + COMPARE_INTERVAL, COMPARE_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            bus: bus.clone(),
            messages,
            position,
            contiguous: false,
            link,
            breaks,
            origin: Uuid::now_v7(),
            began: Instant::now(),
            announced: false,
            checks,
            stall: Stall::default(),
            breaking: None,
            monitor: Arc::clone(monitor),
        })
    }

    /// The next item. While NATS is away it waits. Not cancel-safe: a check that is cut off is lost until the next.
    pub async fn next(&mut self) -> FeedItem {
        if let Some(found) = self.breaking.take() {
            return self.broke(found).await;
        }
        loop {
            let found = match self.wake().await {
                FeedWake::Message(Some(Ok(message))) => match self.take(&message).await {
                    Ok(item) => return item,
                    Err(found) => Some(found),
                },
                FeedWake::Message(Some(Err(error))) => {
                    debug!(error, "the ordered consumer is made again");
                    None
                }
                FeedWake::Message(None) => Some(StreamDiscontinuity::Dropped),
                FeedWake::Announced(origin) => {
                    self.announced |= origin != self.origin.as_bytes().as_slice();
                    None
                }
                FeedWake::Due => Some(StreamDiscontinuity::Announced),
                FeedWake::Check => self.check().await,
            };
            if let Some(found) = found {
                warn!(kind = found.as_str(), "the feed broke");
                if found == StreamDiscontinuity::Stalled {
                    self.breaking = Some(found);
                    return FeedItem::Stalled;
                }
                return self.broke(found).await;
            }
        }
    }

    async fn broke(&mut self, found: StreamDiscontinuity) -> FeedItem {
        self.begin_anew(found).await;
        FeedItem::Broken(found)
    }

    async fn wake(&mut self) -> FeedWake {
        let due = self.began + GATHER_WINDOW;
        tokio::select! {
            biased;
            Ok(()) = self.link.changed() => FeedWake::Check,
            Some(message) = self.breaks.next() => FeedWake::Announced(message.payload),
            _ = self.checks.tick() => FeedWake::Check,
            () = tokio::time::sleep_until(due), if self.announced => FeedWake::Due,
            message = self.messages.next() => FeedWake::Message(message.map(|m| m.map(Box::new).map_err(|e| e.to_string()))),
        }
    }

    /// Takes a message. The first one of a consumer that the library made again is taken only once the stream was found
    /// to be the one that was read: it continues at a remembered sequence, whatever now stands below that.
    async fn take(&mut self, message: &Message) -> Result<FeedItem, StreamDiscontinuity> {
        let first_of_consumer = message.info().is_ok_and(|info| info.consumer_sequence == 1);
        if first_of_consumer
            && self.contiguous
            && let Some(found) = self.compare_until_answered().await
        {
            return Err(found);
        }
        self.read(message)
    }

    fn read(&mut self, message: &Message) -> Result<FeedItem, StreamDiscontinuity> {
        let Ok(info) = message.info() else {
            return Ok(FeedItem::Malformed);
        };
        let (stream_seq, pending) = (info.stream_sequence, info.pending);
        if self.contiguous && stream_seq != self.position.seq + 1 {
            return Err(if stream_seq > self.position.seq {
                StreamDiscontinuity::Skipped
            } else {
                StreamDiscontinuity::Replaced
            });
        }
        let event = FeedEvent::read(
            &message.subject,
            message.headers.as_ref(),
            message.payload.clone(),
        );
        self.contiguous = true;
        self.position.seq = stream_seq;
        self.position.id = event.as_ref().map(|event| event.id);
        Ok(event.map_or(FeedItem::Malformed, |event| FeedItem::Event(event, pending)))
    }

    /// Compares the stream with what was read. What cannot be asked now is asked again soon.
    async fn check(&mut self) -> Option<StreamDiscontinuity> {
        let Link { connected, epoch } = *self.link.borrow_and_update();
        if !connected {
            return None;
        }
        match compare(&self.bus, self.position).await {
            Ok((found, last)) => {
                self.monitor.holds();
                let seq = self.position.seq;
                let read = ReadProgress { seq, epoch };
                let is_stalled = self.stall.note(read, last, Instant::now());
                found.or(is_stalled.then_some(StreamDiscontinuity::Stalled))
            }
            Err(error) => {
                // Where the stream does not answer, its consumer gives nothing either.
                self.stall = Stall::default();
                self.bus.failed(&self.monitor, &error);
                self.checks.reset_after(RETRY_DELAY);
                None
            }
        }
    }

    /// Compares the stream with what was read, however long it takes to be answered.
    async fn compare_until_answered(&mut self) -> Option<StreamDiscontinuity> {
        loop {
            match compare(&self.bus, self.position).await {
                Ok((found, _)) => {
                    self.monitor.holds();
                    return found;
                }
                Err(error) => self.bus.failed(&self.monitor, &error),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Begins at what is new, however long it takes, and tells the others of a break that it found itself.
    async fn begin_anew(&mut self, found: StreamDiscontinuity) {
        let origin = Bytes::copy_from_slice(self.origin.as_bytes());
        if found != StreamDiscontinuity::Announced
            && let Err(error) = self.bus.announce_break_from(origin).await
        {
            debug!(error = %chain(&error), "the break could not be announced");
        }
        self.announced = false;
        self.began = Instant::now();
        self.stall = Stall::default();
        self.link.mark_unchanged();
        loop {
            match begin(&self.bus).await {
                Ok((messages, position)) => {
                    self.monitor.holds();
                    (self.messages, self.position, self.contiguous) = (messages, position, false);
                    self.checks.reset();
                    return;
                }
                Err(error) => {
                    self.bus.failed(&self.monitor, &error);
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// A consumer at new messages, and the position before them: read first, so that what comes between counts as unread.
async fn begin(bus: &Bus) -> Result<(Ordered, StreamPosition), BusError> {
    if !bus.is_connected() {
        return Err(BusError::Disconnected);
    }
    let stream = bus.provision().await?;
    let id = if stream.messages > 0 {
        bus.event_id_at(stream.last).await?
    } else {
        None
    };
    let config = OrderedConfig {
        deliver_subject: bus.client.new_inbox(),
        description: Some("confab gateway: the feed".to_owned()),
        deliver_policy: DeliverPolicy::New,
        ..OrderedConfig::default()
    };
    let consumer = bus
        .events()
        .await?
        .create_consumer(config)
        .await
        .map_err(BusError::nats("create the consumer"))?;
    let messages = consumer
        .messages()
        .await
        .map_err(BusError::nats("read the feed"))?;
    Ok((
        messages,
        StreamPosition {
            created: stream.created,
            seq: stream.last,
            id,
        },
    ))
}

/// Returns how the stream differs from what was read, and its last sequence.
async fn compare(
    bus: &Bus,
    read: StreamPosition,
) -> Result<(Option<StreamDiscontinuity>, u64), BusError> {
    let stream = match bus.stream_state().await {
        Err(BusError::NoStream) => return Ok((Some(StreamDiscontinuity::Recreated), 0)),
        stream => stream?,
    };
    let comparable = stream.first <= read.seq && read.seq <= stream.last && read.seq > 0;
    let there = if comparable {
        bus.event_id_at(read.seq).await?
    } else {
        None
    };
    Ok((read.compare(&stream, there), stream.last))
}

#[cfg(test)]
mod tests;
