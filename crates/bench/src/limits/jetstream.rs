//! JetStream: events that are published into the stream that confab makes, each once, and what reads them all in order.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use confab_bus::{Bus, EVENTS_STREAM, Outgoing, PendingAck};
use confab_protocol::event::{EventType, LogEntry};
use confab_protocol::timestamp::Timestamp;
use futures_util::StreamExt as _;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use super::nats::connect;
use super::postgres::{TARGET_CONVERSATIONS, one, settings};
use super::sender::{MeasuredServer, PartMeasurement, Window, isolated, measure};
use crate::Error;
use crate::load::Latencies;
use crate::stack::Servers;

/// How long NATS is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Consumers of the live stream: so many that what they cost shows beside what publishing costs.
const LIVE_CONSUMERS: u32 = 4;

/// What the live stream costs, by side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Live {
    /// Consumers that read at once.
    pub(crate) consumers: u32,
    /// Of all consumers together. The server's time is for a delivery: what it takes more than without consumers, for each of them.
    #[serde(flatten)]
    pub(crate) delivery: PartMeasurement,
    /// The publishing beside it; the server's time includes the deliveries.
    pub(crate) publish: PartMeasurement,
}

/// Publishes with so many unacknowledged. The latency is until the acknowledgement.
pub(crate) async fn publish(
    servers: &mut Servers,
    in_flight: usize,
    length: Duration,
) -> Result<PartMeasurement, Error> {
    publish_in(servers, in_flight, Window::of(length)).await
}

async fn publish_in(
    servers: &mut Servers,
    in_flight: usize,
    window: Window,
) -> Result<PartMeasurement, Error> {
    let server = MeasuredServer::Nats(servers.nats.process()?.id());
    let settings = settings(servers)?;
    isolated(move || async move {
        let bus = Bus::connect(&settings.nats, "confab-bench").await?;
        let mut link = bus.connection();
        let connected = timeout(CONNECT_TIMEOUT, link.wait_for(|link| link.connected)).await;
        if !matches!(connected, Ok(Ok(_))) {
            return Err(Error::Nats("it is away".to_owned()));
        }
        drop(connected);
        bus.provision().await?;
        let taken = Latencies::default();
        let work = publish_all(&bus, in_flight, &taken);
        measure(work, &taken, 1.0, server, window).await
    })
    .await
}

async fn publish_all(bus: &Bus, in_flight: usize, taken: &Latencies) -> Result<(), Error> {
    let mut waiting: VecDeque<(Instant, PendingAck)> = VecDeque::with_capacity(in_flight);
    for n in 0.. {
        // Acknowledgements come in the order of what was published.
        if waiting.len() >= in_flight
            && let Some((began, publishing)) = waiting.pop_front()
        {
            publishing.ack().await?;
            taken.record(began.elapsed());
        }
        let event = event(n)?;
        let began = Instant::now();
        waiting.push_back((began, bus.publish(&event).await?));
    }
    Ok(())
}

/// An event as workers publish it.
pub(super) fn event(n: u64) -> Result<Outgoing, Error> {
    let (caller, message) = one(n % TARGET_CONVERSATIONS.conversations, n)?;
    let seq = 2 + n / TARGET_CONVERSATIONS.conversations;
    let entry = LogEntry {
        conversation: message.conversation,
        seq,
        id: message.message,
        event_type: EventType::MessageCreated,
        actor: &caller.user,
        client_id: Some(message.client_id),
        created_at: Timestamp::new(OffsetDateTime::UNIX_EPOCH),
        edited_at: None,
        deleted_at: None,
        version: 1,
        payload: message.payload.as_str(),
        target_seq: None,
        target: None,
    };
    Ok(Outgoing {
        json: entry.encode().into(),
        tenant: caller.tenant.clone(),
        conversation: message.conversation,
        seq,
        id: message.message,
        r#type: EventType::MessageCreated,
        target_seq: None,
    })
}

/// One ordered consumer reads what [`publish`] has left in the stream, as fast as it comes, from the beginning whenever it is through.
pub(crate) async fn replay(
    servers: &mut Servers,
    length: Duration,
) -> Result<PartMeasurement, Error> {
    let server = MeasuredServer::Nats(servers.nats.process()?.id());
    consume(
        servers.nats.url(),
        DeliverPolicy::All,
        server,
        Window::of(length),
    )
    .await
}

/// Several ordered consumers read what is published at the same time, as fast as that goes. `alone` is what publishing costs
/// without them.
pub(crate) async fn live(
    servers: &mut Servers,
    in_flight: usize,
    alone: &PartMeasurement,
    length: Duration,
) -> Result<Live, Error> {
    let server = MeasuredServer::Nats(servers.nats.process()?.id());
    let window = Window::of_senders(LIVE_CONSUMERS as usize + 1, length);
    let reading = (0..LIVE_CONSUMERS).map(|_| {
        consume(
            servers.nats.url(),
            DeliverPolicy::New,
            server,
            window.clone(),
        )
    });
    let reading: Vec<_> = reading.collect();
    let reading = futures_util::future::try_join_all(reading);
    let (read, publish) = tokio::try_join!(reading, publish_in(servers, in_flight, window))?;
    let sum = |of: fn(&PartMeasurement) -> f64| read.iter().map(of).sum::<f64>();
    let consumers = f64::from(LIVE_CONSUMERS);
    let delivery = PartMeasurement {
        per_second: sum(|part| part.per_second),
        server_micros: (publish.server_micros - alone.server_micros) / consumers,
        client_micros: sum(|part| part.client_micros) / consumers,
        ..PartMeasurement::default()
    };
    Ok(Live {
        consumers: LIVE_CONSUMERS,
        delivery,
        publish,
    })
}

async fn consume(
    url: String,
    from: DeliverPolicy,
    server: MeasuredServer,
    window: Window,
) -> Result<PartMeasurement, Error> {
    isolated(move || async move {
        let jetstream = jetstream::new(connect(&url).await?);
        let taken = Latencies::default();
        let work = Box::pin(read(&jetstream, from, &taken));
        measure(work, &taken, 1.0, server, window).await
    })
    .await
}

async fn read(
    jetstream: &jetstream::Context,
    from: DeliverPolicy,
    taken: &Latencies,
) -> Result<(), Error> {
    let stream = jetstream.get_stream(EVENTS_STREAM).await;
    let stream = stream.map_err(Error::nats("find the stream"))?;
    loop {
        let config = OrderedConfig {
            deliver_subject: jetstream.client().new_inbox(),
            deliver_policy: from,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(Error::nats("make a consumer"))?;
        let messages = consumer.messages().await;
        let mut messages = messages.map_err(Error::nats("read the stream"))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(Error::nats("read the stream"))?;
            taken.record(Duration::ZERO);
            let behind = message.info().map_or(0, |info| info.pending);
            if behind == 0 && from == DeliverPolicy::All {
                break;
            }
        }
    }
}
