//! A worker's side of the feed: events that were committed go into the stream.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, Seq, TenantId};

use crate::connection::Bus;
use crate::error::BusError;
use crate::feed::{SEQ_HEADER, TARGET_SEQ};
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
pub struct PendingAck(PublishAckFuture);

/// JetStream's acknowledgement of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The event's sequence in the stream.
    pub sequence: u64,
    /// True if the stream had the event already, at that sequence.
    pub duplicate: bool,
}

impl PendingAck {
    /// Waits for JetStream's acknowledgement, for a bounded time.
    ///
    /// # Errors
    /// [`BusError::Refused`] when the event can never be stored; else when no acknowledgement came: the event may be in the stream or
    /// not.
    pub async fn ack(self) -> Result<Acknowledged, BusError> {
        let ack = self.0.await.map_err(failed)?;
        Ok(Acknowledged {
            sequence: ack.sequence,
            duplicate: ack.duplicate,
        })
    }
}

/// Tells an event that JetStream will never take from one that it does not take now.
fn failed(error: PublishError) -> BusError {
    const PUBLISH_ACTION: &str = "publish an event";
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => BusError::Refused,
        PublishErrorKind::TimedOut => BusError::Timeout,
        PublishErrorKind::StreamNotFound => BusError::NoStream,
        _ => {
            let source = std::error::Error::source(&error);
            let answer = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
            match answer.map(jetstream::Error::error_code) {
                Some(
                    ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
                    | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
                ) => BusError::Refused,
                _ => BusError::nats(PUBLISH_ACTION)(error),
            }
        }
    }
}

impl Bus {
    /// Hands an event to NATS. Publishes of one connection enter the stream in this order.
    ///
    /// # Errors
    /// [`BusError::Disconnected`] without handing it over, [`BusError::Refused`] when it is larger than any message may be; else when
    /// the connection fails.
    pub async fn publish(&self, event: &Outgoing) -> Result<PendingAck, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.id.to_string());
        headers.insert(SEQ_HEADER, event.seq.to_string());
        if let Some(target) = event.target_seq {
            headers.insert(TARGET_SEQ, target.to_string());
        }
        let subject = subjects::event(&event.tenant, event.conversation, event.r#type);
        self.jetstream
            .publish_with_headers(subject, headers, event.json.clone())
            .await
            .map(PendingAck)
            .map_err(failed)
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
            .publish(subjects::DISCONTINUITY_SUBJECT, origin)
            .await
            .map_err(BusError::nats("announce a break"))
    }
}
