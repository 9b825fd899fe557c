//! What is asked: each a call that a client makes when its user opens, scrolls or lists.

use confab_client::{ConversationFilter, Http, ParticipantFilter};
use confab_protocol::ids::Seq;
use confab_protocol::query::ListOrder;
use serde::Serialize;

use super::installation::{Installation, conversation_id};
use crate::Error;

/// Items of a page.
pub(super) const PAGE_ITEMS: u32 = 50;

/// A call, with a conversation of its own each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Call {
    /// The newest messages of a conversation.
    Newest,
    /// Messages before a seq, in the middle of a conversation.
    Middle,
    /// Events behind a seq: what a client lacks.
    Events,
    /// The newest messages of a conversation that has a tenth of all events.
    LongNewest,
    /// Messages before a seq of it, anywhere.
    LongMiddle,
    /// A user's conversations, the last active first.
    Recent,
    /// A user's conversations, the newest first.
    Created,
    /// One conversation with its participants.
    Conversation,
    /// A page of its participants.
    Participants,
}

/// All of them.
pub(crate) const ALL_CALLS: [Call; 9] = [
    Call::Newest,
    Call::Middle,
    Call::Events,
    Call::LongNewest,
    Call::LongMiddle,
    Call::Recent,
    Call::Created,
    Call::Conversation,
    Call::Participants,
];

/// Pages of messages.
pub(crate) const PAGE_CALLS: [Call; 2] = [Call::Newest, Call::Middle];

/// A call to be made.
#[derive(Debug)]
pub(super) struct PlannedCall {
    http: Http,
    call: Call,
    number: u64,
    before: Option<Seq>,
}

impl Call {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest messages",
            Self::Middle => "messages before a seq",
            Self::Events => "events after a seq",
            Self::LongNewest => "newest messages of a long log",
            Self::LongMiddle => "messages before a seq of a long log",
            Self::Recent => "conversations by activity",
            Self::Created => "conversations by creation",
            Self::Conversation => "a conversation",
            Self::Participants => "participants",
        }
    }

    /// One of someone, about one of its conversations.
    pub(super) fn of(self, installation: &Installation) -> Result<PlannedCall, Error> {
        let is_long = matches!(self, Self::LongNewest | Self::LongMiddle);
        let (http, number) = if is_long {
            (installation.of_the_long_one()?, 0)
        } else {
            installation.any()?
        };
        let head = installation.seed.head(number);
        let before = match self {
            Self::Middle => Some(head * 2 / 3),
            Self::LongMiddle => Some(rand::random_range(head / 10..=head)),
            Self::Events => Some(head.saturating_sub(PAGE_ITEMS.into())),
            _ => None,
        };
        Ok(PlannedCall {
            http,
            call: self,
            number,
            before,
        })
    }
}

impl PlannedCall {
    /// Makes the call; gives how many items came.
    pub(super) async fn ask(self) -> Result<usize, Error> {
        let Self {
            http, call, before, ..
        } = &self;
        let id = conversation_id(self.number);
        let listed = |order| ConversationFilter {
            r#type: None,
            order,
        };
        Ok(match call {
            Call::Newest | Call::Middle | Call::LongNewest | Call::LongMiddle => {
                let page = http.history_page(id, PAGE_ITEMS, *before).await?;
                page.messages.len()
            }
            Call::Events => {
                let after = before.unwrap_or_default();
                http.events_page(id, after, PAGE_ITEMS).await?.events.len()
            }
            Call::Recent | Call::Created => {
                let order = match call {
                    Call::Recent => ListOrder::Recent,
                    _ => ListOrder::Created,
                };
                let page = http
                    .conversations_of(&listed(order), PAGE_ITEMS, None)
                    .await?;
                page.conversations.len()
            }
            Call::Conversation => http.conversation(id).await?.participants.len(),
            Call::Participants => {
                let filter = ParticipantFilter::default();
                let page = http
                    .participants_page(id, &filter, PAGE_ITEMS, None)
                    .await?;
                page.participants.len()
            }
        })
    }
}
