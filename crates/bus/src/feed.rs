//! A gateway's side of the feed: one ordered consumer over the whole stream, and the watch for breaks in it.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, Seq, TenantId};

use crate::subjects;

mod backfill;
mod reader;
mod watch;

pub use backfill::{Backfill, BackfillEnd, BackfillItem, BackfillWindow};
pub use reader::{Feed, FeedItem};
pub use watch::StreamDiscontinuity;

/// The header with the event's number in its conversation.
pub(crate) const SEQ_HEADER: &str = "Confab-Seq";
/// The header with the number of the message that an edit or deletion is about.
pub(crate) const TARGET_SEQ: &str = "Confab-Target-Seq";

/// An event as it came through the stream: known by its subject and headers, its JSON not parsed.
#[derive(Debug, Clone)]
pub struct FeedEvent {
    /// The product.
    pub tenant: TenantId,
    /// Whose log.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Its id.
    pub id: EventId,
    /// What it says.
    pub r#type: EventType,
    /// The message that an edit or deletion is about: every one of those says so.
    pub target_seq: Option<Seq>,
    /// The event as clients receive it.
    pub json: Bytes,
}

impl FeedEvent {
    /// Reads subject and headers; none when they are not those of an event.
    fn read(subject: &str, headers: Option<&HeaderMap>, json: Bytes) -> Option<Self> {
        let (tenant, conversation, event_type) = subjects::parse_event(subject)?;
        let headers = headers?;
        let number = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.as_str().parse::<Seq>().ok())
        };
        let target_seq = number(TARGET_SEQ);
        // The replay window needs the message that an edit or deletion changes.
        let changes = matches!(
            event_type,
            EventType::MessageEdited | EventType::MessageDeleted
        );
        if changes && target_seq.is_none() {
            return None;
        }
        Some(Self {
            tenant,
            conversation,
            seq: number(SEQ_HEADER).filter(|seq| *seq > 0)?,
            id: headers.get(NATS_MESSAGE_ID)?.as_str().parse().ok()?,
            r#type: event_type,
            target_seq,
            json,
        })
    }
}
