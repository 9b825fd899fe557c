//! Calls to `/v1/conversations/{id}/events`.

use confab_protocol::event::Event;
use confab_protocol::ids::{ConversationId, Seq};
use serde::Deserialize;

use super::{Http, query};
use crate::ClientError;

/// The most events that a page may have.
const MAX_PAGE_EVENTS: u32 = 1000;

/// A part of a conversation's log.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    /// In order of their seqs.
    pub events: Vec<Event>,
    /// The conversation's last seq: more is there while the last event's is below.
    pub head_seq: Seq,
}

impl Http {
    /// Reads a part of a conversation's log: what is above `after`, at most `limit` events.
    ///
    /// # Errors
    /// As every call.
    pub async fn events_page(
        &self,
        conversation: ConversationId,
        after: Seq,
        limit: u32,
    ) -> Result<EventPage, ClientError> {
        let mut url = self.url(&format!("v1/conversations/{conversation}/events"))?;
        query(&mut url, "after", Some(after));
        query(&mut url, "limit", Some(limit));
        self.get(url).await
    }

    /// Reads a conversation's log from above `after` to its head.
    ///
    /// # Errors
    /// As every call.
    pub async fn events(
        &self,
        conversation: ConversationId,
        after: Seq,
    ) -> Result<Vec<Event>, ClientError> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let last = events.last().map_or(after, |event| event.seq);
            let page = self
                .events_page(conversation, last, MAX_PAGE_EVENTS)
                .await?;
            let ended = page.events.is_empty();
            events.extend(page.events);
            if ended || events.last().is_some_and(|last| last.seq >= page.head_seq) {
                return Ok(events);
            }
        }
    }
}
