//! Sending a message, editing and deleting it: what is appended, and what its sender is told.

use confab_protocol::command::{Caller, Outcome, SendAnswer, SendMessage, Sent};
use confab_protocol::error::{Code, Extension, Failure};
use confab_protocol::event::{EventType, LogEntry, MessageDeleted};
use confab_protocol::ids::EventId;
use confab_protocol::json::{JsonText, compact, merge_patch};
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, MessageBody, MessageContent};
use confab_protocol::timestamp::Timestamp;

use crate::decision::{self, Locked, NewEvent, StoredMessage, administers, fits, visible};
use crate::error::{CommandError, locked};
use crate::repeats::is_same_body;

/// A message that is to be appended.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) caller: Caller,
    pub(crate) message: SendMessage,
    /// The id it gets, the same in every try.
    pub(crate) id: EventId,
}

/// What the store did with an [`Append`].
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) decision: Decision,
    pub(crate) seq: i64,
    pub(crate) id: EventId,
    pub(crate) created_at: Timestamp,
    /// Of a repeat: what is stored of its message.
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
    pub(crate) version: u64,
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
    /// Another holds the conversation: nothing was decided.
    Locked,
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
            "locked" => Self::Locked,
            _ => return Err(()),
        })
    }
}

/// Decides what can be decided without the store.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE` when the event would be larger than an event may be.
pub(crate) fn send(caller: Caller, message: SendMessage) -> Result<Append, Failure> {
    fits(message.payload.as_str())?;
    Ok(Append {
        caller,
        id: message.message,
        message,
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
            version: stored.map_or(1, |stored| stored.version),
            payload: stored.map_or(self.message.payload.as_str(), |stored| &stored.payload),
            target_seq: None,
            target: None,
        }
    }

    /// What the sender is told.
    pub(crate) fn answer(&self, appended: &Appended) -> Result<Outcome, Failure> {
        match appended.decision {
            Decision::Duplicate if !self.repeats(appended) => Err(reused()),
            Decision::Stored | Decision::Duplicate => Ok(Outcome::Sent(self.sent(appended))),
            Decision::Reused => Err(reused()),
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
            Decision::Locked => Err(locked()),
        }
    }

    /// Whether this is what was sent under its key, as far as that can be told: once the message was edited or deleted, nothing is left to
    /// compare with, and the key alone is recognised.
    fn repeats(&self, appended: &Appended) -> bool {
        appended.stored.as_ref().is_none_or(|stored| {
            stored.edited_at.is_some()
                || stored.deleted_at.is_some()
                || is_same_body(&stored.payload, self.message.payload.as_str())
        })
    }

    fn sent(&self, appended: &Appended) -> Sent {
        let message = match self.message.answer {
            SendAnswer::Ack => None,
            SendAnswer::Message => Some(JsonText::trusted(self.entry(appended).encode_message())),
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

fn reused() -> Failure {
    let why = "the clientId was used for another message";
    Failure::new(Code::IdempotencyKeyReused, why)
}

/// What an edit makes of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edit<'a> {
    /// The new [`MessageContent`] as JSON; none where it stays.
    pub(crate) content: Option<&'a JsonText>,
    /// A JSON merge patch of the metadata; none where they stay.
    pub(crate) metadata: Option<&'a JsonText>,
}

impl Edit<'_> {
    /// The payload of the message with this one behind the edit.
    pub(crate) fn apply(&self, payload: &str) -> Result<String, serde_json::Error> {
        let mut body: MessageBody = serde_json::from_str(payload)?;
        if let Some(content) = self.content {
            let new: MessageContent = serde_json::from_str(content.as_str())?;
            body.content = new.content;
            body.encrypted_content = new.encrypted_content;
            body.payload_size_bytes = new.payload_size_bytes;
        }
        if let Some(patch) = self.metadata {
            body.metadata = merge_patch(&body.metadata, patch)?;
        }
        serde_json::to_string(&body)
    }

    /// Refuses what no message may become: in clear what was encrypted, and more metadata than a message has.
    fn check(&self, payload: &str, edited: &str) -> Result<(), CommandError> {
        let (before, behind): (MessageBody, MessageBody) = (
            serde_json::from_str(payload)?,
            serde_json::from_str(edited)?,
        );
        if before.encrypted_content.is_some() && behind.encrypted_content.is_none() {
            let why = "must be encryptedContent: the message is encrypted";
            return Err(Failure::field("/content", why).into());
        }
        let metadata = behind.metadata.as_str();
        let is_long = |text: &str| text.len() > limits::MESSAGE_METADATA;
        if is_long(metadata) && compact(metadata).is_none_or(|short| is_long(&short)) {
            let most = limits::MESSAGE_METADATA;
            let why = format!("must be at most {most} bytes of JSON behind the change");
            return Err(Failure::field("/metadata", why).into());
        }
        Ok(())
    }
}

/// Changes a message: only its sender does, and in a channel only while it may send there. `message` is what stands in the conversation, if
/// anything. Nothing is appended where the message says the same behind it.
pub(crate) fn edit(
    caller: &Caller,
    locked: &Locked,
    message: Option<StoredMessage>,
    edit: Edit<'_>,
    expected_version: Option<u64>,
) -> Result<Option<decision::Append>, CommandError> {
    visible(caller, locked)?;
    let message = message
        .filter(|message| message.deleted_at.is_none())
        .ok_or_else(|| Failure::of(Code::MessageNotFound))?;
    if message.sender != caller.user {
        let why = "only its sender edits a message";
        return Err(Failure::new(Code::InsufficientPermissions, why).into());
    }
    if locked.r#type == ConversationType::Channel && !administers(caller, locked) {
        let why = "only admins edit in a channel";
        return Err(Failure::new(Code::InsufficientPermissions, why).into());
    }
    has_version(&message, expected_version)?;
    let payload = edit.apply(&message.payload)?;
    edit.check(&message.payload, &payload)?;
    fits(&payload)?;
    if is_same_body(&message.payload, &payload) {
        return Ok(None);
    }
    let event = NewEvent {
        event_type: EventType::MessageEdited,
        // Its content is that of the message, which a later change rewrites.
        payload: "{}".to_owned(),
        rewrites: Some(StoredMessage {
            payload,
            edited_at: Some(locked.now),
            version: message.version + 1,
            ..message
        }),
    };
    Ok(Some(decision::Append {
        events: vec![event],
        changes: Vec::new(),
    }))
}

/// Whether a message has the version that its change is meant for.
fn has_version(message: &StoredMessage, expected: Option<u64>) -> Result<(), Failure> {
    if expected.is_none_or(|expected| expected == message.version) {
        return Ok(());
    }
    let why = format!("the message has version {}", message.version);
    Err(Failure::new(Code::PreconditionFailed, why).with(Extension {
        current_version: Some(message.version),
        ..Extension::default()
    }))
}

/// Deletes a message: its sender does, or an admin, which in a direct conversation is the product's backend alone. Nothing is appended where it is deleted already, whatever version is expected: what is
/// asked for stands (RFC 9110, section 13.1.1).
pub(crate) fn delete(
    caller: &Caller,
    locked: &Locked,
    message: Option<StoredMessage>,
    expected_version: Option<u64>,
) -> Result<Option<decision::Append>, CommandError> {
    visible(caller, locked)?;
    let message = message.ok_or_else(|| Failure::of(Code::MessageNotFound))?;
    let moderates = match locked.r#type {
        ConversationType::Direct => caller.admin,
        ConversationType::Group | ConversationType::Channel => administers(caller, locked),
    };
    if message.sender != caller.user && !moderates {
        let why = "only admins delete what others sent, and nobody in a direct conversation";
        return Err(Failure::new(Code::InsufficientPermissions, why).into());
    }
    if message.deleted_at.is_some() {
        return Ok(None);
    }
    has_version(&message, expected_version)?;
    let data = MessageDeleted {
        target_seq: message.seq,
        message_id: message.id,
        deleted_at: locked.now,
    };
    let body: MessageBody = serde_json::from_str(&message.payload)?;
    let payload = serde_json::to_string(&MessageBody {
        content: None,
        encrypted_content: None,
        payload_size_bytes: None,
        metadata: JsonText::empty_object(),
        ..body
    })?;
    let event = NewEvent {
        rewrites: Some(StoredMessage {
            payload,
            deleted_at: Some(locked.now),
            version: message.version + 1,
            ..message
        }),
        ..NewEvent::of(EventType::MessageDeleted, &data)?
    };
    Ok(Some(decision::Append {
        events: vec![event],
        changes: Vec::new(),
    }))
}

#[cfg(test)]
mod tests;
