//! The record of what one connection received.

use std::collections::BTreeMap;

use confab_client::{Closed, Events, Notice};
use confab_protocol::event::Event;
use confab_protocol::frame::{ErrorFrame, Goaway};
use confab_protocol::ids::{ConversationId, Seq};
use tokio::sync::watch;

/// Everything heard so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// By conversation, in the order heard.
    pub(crate) events: BTreeMap<ConversationId, Vec<Event>>,
    /// Refusals that answer no send.
    pub(crate) errors: Vec<ErrorFrame>,
    pub(crate) goaways: Vec<Goaway>,
    /// What is not numbered, in the order heard.
    pub(crate) signals: Vec<Notice>,
    /// How the connection ended, once it has.
    pub(crate) closed: Option<Closed>,
}

impl Record {
    /// The last seq heard of a conversation, 0 when nothing was.
    pub(crate) fn last(&self, conversation: ConversationId) -> Seq {
        let events = self.events.get(&conversation);
        events
            .and_then(|events| events.last())
            .map_or(0, |event| event.seq)
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Event(event) => {
                let events = self.events.entry(event.conversation_id);
                events.or_default().push(event);
            }
            Notice::Error(error) => self.errors.push(error),
            Notice::Goaway(goaway) => self.goaways.push(goaway),
            Notice::Typing(_)
            | Notice::Receipt(_)
            | Notice::Presence(_)
            | Notice::PresenceSnapshot(_)
            | Notice::TokenExpiring(_) => self.signals.push(notice),
            Notice::Closed(closed) => self.closed = Some(closed),
        }
    }
}

/// Notes what comes until the connection ends.
pub(crate) async fn keep(mut events: Events, record: watch::Sender<Record>) {
    while let Some(notice) = events.next().await {
        record.send_modify(|record| record.note(notice));
    }
}
