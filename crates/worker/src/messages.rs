//! Sending a message: what is appended, and what its sender is told.

use confab_protocol::command::{Caller, Outcome, SendAnswer, SendMessage, Sent};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::{EventType, LogEntry};
use confab_protocol::ids::EventId;
use confab_protocol::limits;
use confab_protocol::timestamp::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A message that is to be appended.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) caller: Caller,
    pub(crate) message: SendMessage,
    /// The id it gets, the same in every try.
    pub(crate) id: EventId,
    /// SHA-256 of its payload: what a repeat is compared with.
    pub(crate) hash: [u8; 32],
}

/// What the store did with an [`Append`].
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) decision: Decision,
    pub(crate) seq: i64,
    pub(crate) id: EventId,
    pub(crate) created_at: Timestamp,
    /// Of a repeat whose message was asked for: what is stored of it.
    pub(crate) stored: Option<Stored>,
    /// The outbox row of the batch, where anything was stored.
    pub(crate) outbox: Option<i64>,
}

/// What is stored of a message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) payload: String,
    pub(crate) edited_at: Option<Timestamp>,
    pub(crate) deleted_at: Option<Timestamp>,
}

/// What the store decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Stored,
    Duplicate,
    Reused,
    NotFound,
    Deleted,
    Forbidden,
    NoMessage,
}

impl std::str::FromStr for Decision {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Ok(match name {
            "stored" => Self::Stored,
            "duplicate" => Self::Duplicate,
            "reused" => Self::Reused,
            "not_found" => Self::NotFound,
            "deleted" => Self::Deleted,
            "forbidden" => Self::Forbidden,
            "no_message" => Self::NoMessage,
            _ => return Err(()),
        })
    }
}

/// What an event adds to its payload at most: ids, times, names, and the actor with every character escaped.
pub(crate) const ENVELOPE: usize = 1024 + 128 * 6 * 2;

/// Decides what can be decided without the store.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE` when the event would be larger than an event may be.
pub(crate) fn send(caller: Caller, message: SendMessage) -> Result<Append, Failure> {
    if message.payload.as_str().len() + ENVELOPE > limits::EVENT {
        return Err(Failure::new(
            Code::PayloadTooLarge,
            "the message is larger than an event may be",
        ));
    }
    let hash = Sha256::digest(message.payload.as_str().as_bytes()).into();
    Ok(Append {
        caller,
        message,
        id: EventId(Uuid::now_v7()),
        hash,
    })
}

impl Append {
    /// The event as it stands in the log.
    pub(crate) fn entry<'a>(&'a self, appended: &'a Appended) -> LogEntry<'a> {
        let stored = appended.stored.as_ref();
        LogEntry {
            conversation: self.message.conversation,
            seq: appended.seq.cast_unsigned(),
            id: appended.id,
            event_type: EventType::MessageCreated,
            actor: &self.caller.user,
            client_id: Some(self.message.client_id),
            created_at: appended.created_at,
            edited_at: stored.and_then(|stored| stored.edited_at),
            deleted_at: stored.and_then(|stored| stored.deleted_at),
            payload: stored.map_or(self.message.payload.as_str(), |stored| &stored.payload),
            target_seq: None,
            target: None,
        }
    }

    /// What the sender is told.
    pub(crate) fn answer(&self, appended: &Appended) -> Result<Outcome, Failure> {
        match appended.decision {
            Decision::Stored | Decision::Duplicate => Ok(Outcome::Sent(self.sent(appended))),
            Decision::Reused => Err(Failure::new(
                Code::IdempotencyKeyReused,
                "the clientId was used for another message",
            )),
            Decision::NotFound => Err(Failure::of(Code::ConversationNotFound)),
            Decision::Deleted => Err(Failure::of(Code::ConversationDeleted)),
            Decision::Forbidden => Err(Failure::new(
                Code::InsufficientPermissions,
                "only admins send to a channel",
            )),
            Decision::NoMessage => Err(Failure::new(
                Code::MessageNotFound,
                "replyTo names no message of this conversation",
            )),
        }
    }

    fn sent(&self, appended: &Appended) -> Sent {
        let message = match self.message.answer {
            SendAnswer::Ack => None,
            SendAnswer::Message => Some(confab_protocol::json::JsonText::trusted(
                self.entry(appended).encode_message(),
            )),
        };
        Sent {
            message_id: appended.id,
            conversation: self.message.conversation,
            seq: appended.seq.cast_unsigned(),
            created_at: appended.created_at,
            // A batch that was run again finds what its own first run stored.
            duplicate: appended.id != self.id,
            message,
        }
    }
}
