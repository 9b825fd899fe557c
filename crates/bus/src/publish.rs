//! A worker's side of the feed: events that were committed go into the stream.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::PublishAckFuture;
use bytes::Bytes;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, Seq, TenantId};

use crate::connection::Bus;
use crate::error::BusError;
use crate::feed::{SEQ, TARGET_SEQ};
use crate::subjects;

/// An event on its way into the stream.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The product.
    pub tenant: TenantId,
    /// Whose log.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Its id, which is its Nats-Msg-Id.
    pub id: EventId,
    /// What it says.
    pub r#type: EventType,
    /// The message that an edit or deletion is about.
    pub target_seq: Option<Seq>,
    /// The event as clients receive it.
    pub json: Bytes,
}

/// A publish whose acknowledgement has not come yet.
#[derive(Debug)]
pub struct Publishing(PublishAckFuture);

impl Publishing {
    /// Waits for JetStream's acknowledgement, for a bounded time; gives the event's sequence in the stream.
    ///
    /// # Errors
    /// When none came: the event may be in the stream or not.
    pub async fn ack(self) -> Result<u64, BusError> {
        self.0
            .await
            .map(|ack| ack.sequence)
            .map_err(BusError::nats("publish an event"))
    }
}

impl Bus {
    /// Hands an event to NATS. Publishes of one connection enter the stream in this order.
    ///
    /// # Errors
    /// [`BusError::Disconnected`] without handing it over, else when the connection fails.
    pub async fn publish(&self, event: &Outgoing) -> Result<Publishing, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.id.to_string());
        headers.insert(SEQ, event.seq.to_string());
        if let Some(target) = event.target_seq {
            headers.insert(TARGET_SEQ, target.to_string());
        }
        let subject = subjects::event(&event.tenant, event.conversation, event.r#type);
        self.jetstream
            .publish_with_headers(subject, headers, event.json.clone())
            .await
            .map(Publishing)
            .map_err(BusError::nats("publish an event"))
    }

    /// Tells every gateway that the feed has a break, so that it reconciles.
    ///
    /// # Errors
    /// When NATS is away: then every gateway checks the feed itself at its reconnect.
    pub async fn announce_break(&self) -> Result<(), BusError> {
        self.announce_break_from(Bytes::new()).await
    }

    /// The same, with what tells the announcer its own announcement.
    pub(crate) async fn announce_break_from(&self, origin: Bytes) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(subjects::BREAKS, origin)
            .await
            .map_err(BusError::nats("announce a break"))
    }
}
