//! What is hot, set up so that it can be run alone, again and again: for benchmarks, and for counting allocations. None of it is
//! in what ships.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use confab_bus::feed::FeedEvent;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, IdError, Seq};
use confab_protocol::query::{Membership, UserMemberships};
use uuid::Uuid;

use crate::account::{Account, SessionKey};
use crate::delivery::send_queue::SendQueue;
use crate::delivery::window::Bounds;
use crate::hub::{Effect, Hub, Opening, ReplayLimits, Shards, Start};

mod delivery;
mod frames;
mod replay;
#[cfg(test)]
mod tests;

pub use delivery::Delivery;
pub use frames::{Codec, Received};
pub use replay::{ReplayWindow, Resume};

/// Every event here is of this conversation.
const CONVERSATION_ID: ConversationId = ConversationId(Uuid::from_u128(1 << 80));
/// Nothing becomes too old.
const WINDOW_AGE: Duration = Duration::from_secs(3600);
/// No replay is cut.
const NO_LIMITS: ReplayLimits = ReplayLimits {
    events: u64::MAX,
    bytes: usize::MAX,
};

/// A message as it comes through the feed, with this JSON.
///
/// # Errors
/// Never.
pub fn message(seq: Seq, json: Bytes) -> Result<FeedEvent, IdError> {
    Ok(FeedEvent {
        tenant: "default".parse()?,
        conversation: CONVERSATION_ID,
        seq,
        id: EventId(Uuid::from_u128(2 << 80)),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json,
    })
}

/// A hub whose window holds so many bytes.
fn hub(bytes: usize) -> Hub {
    Hub::new(
        Shards::SINGLE,
        Bounds {
            age: WINDOW_AGE,
            bytes,
        },
        NO_LIMITS,
        Instant::now(),
    )
}

/// Opens a session, whose user is in the conversation from its first event on; the last is `head`. Says how many events are
/// replayed.
fn open(hub: &mut Hub, opening: Opening, head: Seq) -> Option<u64> {
    hub.open(opening);
    for effect in hub.effects() {
        if let Effect::MembershipQuery(ask) = effect {
            let answer = UserMemberships {
                memberships: vec![Membership {
                    conversation: CONVERSATION_ID,
                    joined: 1,
                    left: None,
                    head,
                    members: 2,
                }],
                next: None,
                ended: Vec::new(),
            };
            hub.memberships(ask, vec![answer]);
        }
    }
    hub.effects().into_iter().find_map(|effect| match effect {
        Effect::Opened(_, opened) => Some(opened.replayed),
        _ => None,
    })
}

/// A session of a user of this number, whose send queue is `send_queue`.
fn opening(number: u64, send_queue: Arc<SendQueue>, start: Start) -> Result<Opening, IdError> {
    let account = Account {
        tenant: "default".parse()?,
        user: format!("user-{number}").parse()?,
    };
    Ok(Opening {
        key: SessionKey(number),
        account,
        send_queue,
        start,
    })
}
