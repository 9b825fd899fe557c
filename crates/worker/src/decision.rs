//! What a command is decided on, and what it comes to: values, without a database.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::{EventType, LogEntry, Member};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};
use confab_protocol::timestamp::Timestamp;
use serde::Serialize;

/// What is known of a conversation under its lock.
#[derive(Debug, Clone)]
pub(crate) struct Locked {
    pub(crate) r#type: ConversationType,
    pub(crate) last_seq: Seq,
    pub(crate) members: u64,
    pub(crate) deleted_at: Option<Timestamp>,
    /// The caller's role; none where it is no member.
    pub(crate) role: Option<Role>,
    /// Whether the caller ever was a member.
    pub(crate) was_member: bool,
    /// The time of the transaction; never before the conversation's last event.
    pub(crate) now: Timestamp,
}

/// What is appended to a log, and what that does to the projections: all in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    /// In their order; the first one carries the command's key.
    pub(crate) events: Vec<NewEvent>,
    pub(crate) changes: Vec<Change>,
}

/// An event that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) event_type: EventType,
    pub(crate) payload: String,
    /// Of an edit or deletion the message that it is about, as it is from then on.
    pub(crate) rewrites: Option<StoredMessage>,
}

/// A change of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// These memberships begin with the first event.
    Join(Vec<Member>),
    /// This user's membership ends with the first event.
    Leave(UserId),
    /// This member's role is another.
    SetRole(UserId, Role),
    /// The metadata is another, and has this version.
    SetMetadata(JsonText, u64),
    /// The conversation is deleted with the last event, which ends the memberships that are left.
    Delete,
}

/// A `message.created` as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMessage {
    pub(crate) seq: Seq,
    pub(crate) id: EventId,
    pub(crate) sender: UserId,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) created_at: Timestamp,
    pub(crate) edited_at: Option<Timestamp>,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) version: u64,
    pub(crate) payload: String,
}

impl NewEvent {
    /// An event with its data.
    ///
    /// # Errors
    /// When the data has no JSON form.
    pub(crate) fn of<T: Serialize>(
        event_type: EventType,
        data: &T,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            event_type,
            payload: serde_json::to_string(data)?,
            rewrites: None,
        })
    }
}

impl StoredMessage {
    /// Its entry in the log.
    pub(crate) fn entry(&self, conversation: ConversationId) -> LogEntry<'_> {
        LogEntry {
            conversation,
            seq: self.seq,
            id: self.id,
            event_type: EventType::MessageCreated,
            actor: &self.sender,
            client_id: self.client_id,
            created_at: self.created_at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
            version: self.version,
            payload: &self.payload,
            target_seq: None,
            target: None,
        }
    }
}

/// What an event adds to its payload at most: ids, times, names, and the actor with every character escaped.
pub(crate) const ENVELOPE: usize = 1024 + 128 * 6 * 2;

/// Whether an event with this payload is as small as it has to be.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE`.
pub(crate) fn fits(payload: &str) -> Result<(), Failure> {
    if payload.len() + ENVELOPE > limits::MAX_EVENT_BYTES {
        let why = "it is more than an event may hold";
        return Err(Failure::new(Code::PayloadTooLarge, why));
    }
    Ok(())
}

/// Whether the caller may see the conversation at all.
///
/// # Errors
/// `CONVERSATION_DELETED` to those who were members, else `CONVERSATION_NOT_FOUND`.
pub(crate) fn visible(caller: &Caller, locked: &Locked) -> Result<(), Failure> {
    let is_deleted = locked.deleted_at.is_some();
    if is_deleted && (caller.admin || locked.was_member) {
        return Err(Failure::of(Code::ConversationDeleted));
    }
    if is_deleted || !(caller.admin || locked.role.is_some()) {
        return Err(Failure::of(Code::ConversationNotFound));
    }
    Ok(())
}

/// Whether the caller may do what admins may: it is one, or the product's own backend.
pub(crate) fn administers(caller: &Caller, locked: &Locked) -> bool {
    caller.admin || locked.role == Some(Role::Admin)
}
