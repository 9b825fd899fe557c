//! What the stream kept of before: read once, by a consumer of its own, as fast as its reader asks for more.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use confab_protocol::chain::chain;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tracing::debug;

use super::FeedEvent;
use crate::connection::Bus;
use crate::error::BusError;
use crate::topology::StreamState;

/// Messages that are read at once: little enough when each is as large as an event may be.
const MAX_BATCH_MESSAGES: usize = 128;
/// Time that one run may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after which a run that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Runs that may fail one after another while NATS is connected.
const MAX_FAILED_BATCHES: u32 = 40;
/// Time for which the consumer outlives a reader that asks for nothing more.
const CONSUMER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The range of the stream that a backfill reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillWindow {
    /// Events up to this much older than the newest.
    pub age: Duration,
    /// About so many bytes of events, the newest.
    pub bytes: u64,
}

/// An item of a backfill.
#[derive(Debug)]
pub enum BackfillItem {
    /// Events in the stream's order, and how many messages among them were none.
    Batch(Vec<FeedEvent>, u64),
    /// There is nothing more.
    End(BackfillEnd),
}

/// The end of a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillEnd {
    /// All was read.
    Whole,
    /// The stream is another, or lost its tail: of what it held, nothing more can be had.
    Erased,
    /// It could not be read, however often that was tried.
    Unreadable,
}

/// The stream's past, from where [`BackfillWindow`] says up to the end that the stream had at the opening. What a feed that was
/// open by then gives comes behind that, or twice.
#[derive(Debug)]
pub struct Backfill {
    bus: Bus,
    window: BackfillWindow,
    /// The stream's creation time.
    created: OffsetDateTime,
    /// When the newest message came, by the stream's own clock.
    newest: OffsetDateTime,
    /// About how many messages the reach in bytes is.
    most: u64,
    /// The last sequence that was read; none before the first run.
    read: Option<u64>,
    /// The last sequence to read.
    end: u64,
    consumer: Option<OpenConsumer>,
    failed: u32,
}

#[derive(Debug)]
struct OpenConsumer {
    consumer: Consumer<Config>,
    /// How many messages it gave.
    given: u64,
}

impl Backfill {
    /// Begins, without reading yet.
    ///
    /// # Errors
    /// When JetStream is away, or there is no stream.
    pub async fn open(bus: &Bus, window: BackfillWindow) -> Result<Self, BusError> {
        let info = bus.stream_info().await?;
        let (state, stream) = (&info.state, StreamState::from(&info));
        let average = state.bytes / state.messages.max(1);
        Ok(Self {
            bus: bus.clone(),
            window,
            created: stream.created,
            newest: state.last_timestamp,
            most: (window.bytes / average.max(1)).max(1),
            read: (stream.messages == 0).then_some(stream.last),
            end: stream.last,
            consumer: None,
            failed: 0,
        })
    }

    /// The next run. While NATS is away it waits.
    pub async fn next(&mut self) -> BackfillItem {
        loop {
            if self.read >= Some(self.end) {
                return BackfillItem::End(BackfillEnd::Whole);
            }
            match Box::pin(self.next_batch()).await {
                Ok((events, malformed)) if !events.is_empty() || malformed > 0 => {
                    self.failed = 0;
                    return BackfillItem::Batch(events, malformed);
                }
                Ok(_nothing) => debug!("a run of the past brought nothing"),
                Err(error) => debug!(error = %chain(&error), "a run of the past failed"),
            }
            self.consumer = None;
            if let Some(end) = self.gone().await {
                return BackfillItem::End(end);
            }
        }
    }

    /// After a run that brought nothing: whether what is missing is still there.
    async fn gone(&mut self) -> Option<BackfillEnd> {
        match self.bus.stream_state().await {
            Err(BusError::NoStream) => return Some(BackfillEnd::Erased),
            Ok(stream) if stream.created != self.created || stream.last < self.end => {
                return Some(BackfillEnd::Erased);
            }
            // What was to be read has expired.
            Ok(stream) if stream.messages == 0 || stream.first > self.end => {
                return Some(BackfillEnd::Whole);
            }
            Ok(_) => self.failed += 1,
            Err(error) => {
                debug!(error = %chain(&error), "the stream could not be asked for its state");
                self.failed += u32::from(self.bus.is_connected());
            }
        }
        if self.failed >= MAX_FAILED_BATCHES {
            return Some(BackfillEnd::Unreadable);
        }
        tokio::time::sleep(RETRY_DELAY).await;
        None
    }

    async fn next_batch(&mut self) -> Result<(Vec<FeedEvent>, u64), BusError> {
        let mut reading = match self.consumer.take() {
            Some(reading) => reading,
            None => self.begin().await?,
        };
        let fetch = reading
            .consumer
            .fetch()
            .max_messages(MAX_BATCH_MESSAGES)
            .expires(BATCH_TIMEOUT);
        let mut messages = fetch
            .messages()
            .await
            .map_err(BusError::nats("read the stream's past"))?;
        let (mut events, mut malformed) = (Vec::with_capacity(MAX_BATCH_MESSAGES), 0);
        let whole = tokio::time::timeout(BATCH_TIMEOUT, async {
            while let Some(message) = messages.next().await {
                let Ok(message) = message else { return false };
                match self.take(&mut reading, &message) {
                    ReadMessage::Event(event) => events.push(event),
                    ReadMessage::Malformed => malformed += 1,
                    ReadMessage::Behind => return true,
                    ReadMessage::Lost => return false,
                }
            }
            true
        });
        if whole.await == Ok(true) {
            self.consumer = Some(reading);
        }
        Ok((events, malformed))
    }

    /// Takes a message, where it is the next one.
    fn take(&mut self, reading: &mut OpenConsumer, message: &Message) -> ReadMessage {
        let Ok(info) = message.info() else {
            return ReadMessage::Lost;
        };
        if info.consumer_sequence != reading.given + 1 {
            return ReadMessage::Lost;
        }
        reading.given += 1;
        self.read = Some(info.stream_sequence);
        if info.stream_sequence > self.end {
            return ReadMessage::Behind;
        }
        let (subject, headers) = (&message.subject, message.headers.as_ref());
        match FeedEvent::read(subject, headers, message.payload.clone()) {
            Some(event) => ReadMessage::Event(event),
            None => ReadMessage::Malformed,
        }
    }

    /// A consumer at what comes next; at first as far back as the reach goes.
    async fn begin(&self) -> Result<OpenConsumer, BusError> {
        let start_time = self.newest - self.window.age;
        let policy = self
            .read
            .map_or(DeliverPolicy::ByStartTime { start_time }, from_behind);
        let mut consumer = self.consume(policy).await?;
        let unread = consumer.cached_info().num_pending;
        if self.read.is_none() && unread > self.most {
            let newest = from_behind(self.end.saturating_sub(self.most));
            consumer = self.consume(newest).await?;
        }
        Ok(OpenConsumer { consumer, given: 0 })
    }

    async fn consume(&self, deliver_policy: DeliverPolicy) -> Result<Consumer<Config>, BusError> {
        let config = Config {
            description: Some("confab gateway: the feed's past".to_owned()),
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_IDLE_TIMEOUT,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        self.bus
            .events()
            .await?
            .create_consumer(config)
            .await
            .map_err(BusError::nats("create the consumer of the past"))
    }
}

/// The policy of a consumer that begins behind a sequence.
const fn from_behind(seq: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence {
        start_sequence: seq + 1,
    }
}

enum ReadMessage {
    Event(FeedEvent),
    Malformed,
    /// It came after the opening: the feed has it.
    Behind,
    /// Something before it was not heard, or it is no message of the stream's.
    Lost,
}

#[cfg(test)]
mod tests;
