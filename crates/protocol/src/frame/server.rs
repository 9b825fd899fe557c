//! Frames from a gateway, but for events, which are encoded by the worker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Code, Failure, FieldError, is_zero};
use crate::ids::{ConversationId, EventId, Seq, SessionId, UserId};
use crate::signal::PresenceStatus;
use crate::timestamp::Timestamp;

/// A frame from a gateway, but for events, which are encoded by the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ServerFrame {
    /// The session is open.
    Welcome(Box<Welcome>),
    /// What a frame asked for is done.
    Ack(Ack),
    /// Something was refused.
    Error(ErrorFrame),
    /// A member types, or stopped to.
    Typing(TypingSignal),
    /// A member has read.
    Receipt(ReceiptSignal),
    /// A user of the client's conversations came, went away or left.
    Presence(PresenceSignal),
    /// Who of those that share a conversation with the client's user is there.
    PresenceSnapshot(PresenceSnapshot),
    /// A range that is not sent, found after the welcome.
    Truncated(Truncated),
    /// What resumes the session from now on.
    ResumeToken(ResumeToken),
    /// The token ends soon: the client should renew it.
    TokenExpiring(TokenExpiring),
    /// The client should connect elsewhere.
    Goaway(Goaway),
    /// The answer to a ping.
    Pong {
        /// The ping's id.
        id: Option<String>,
    },
}

/// The session is open; replayed events follow, then live ones.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The hello's id.
    #[schema(required)]
    pub id: Option<String>,
    /// This connection's life across resumes.
    pub session_id: SessionId,
    /// Who the client is, as its token says.
    pub user_id: UserId,
    /// Whether the session of the resume token goes on.
    pub resumed: bool,
    /// Why it does not.
    #[schema(required)]
    pub reason: Option<String>,
    /// How many events are replayed.
    pub replayed: u64,
    /// What is not replayed and must be read over HTTP.
    pub truncated: Vec<Truncated>,
    /// Every conversation's last seq, where hello asked for it.
    #[schema(required, value_type = Option<BTreeMap<ConversationId, u64>>)]
    pub heads: Option<BTreeMap<ConversationId, Seq>>,
    /// What resumes this session.
    #[schema(required)]
    pub resume_token: Option<String>,
    /// For how long after the connection's end it can be resumed, in seconds.
    pub resume_window_seconds: u64,
    /// How often the server pings, in seconds.
    pub heartbeat_seconds: u64,
    /// What the client may send.
    pub limits: WelcomeLimits,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("session_id", &self.session_id)
            .field("resumed", &self.resumed)
            .field("reason", &self.reason)
            .field("replayed", &self.replayed)
            .field("truncated", &self.truncated)
            .finish_non_exhaustive()
    }
}

/// What the client may send, in bytes, and what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeLimits {
    /// A frame.
    pub frame_bytes: usize,
    /// A message's content in clear.
    pub content_bytes: usize,
    /// A message's encrypted content, decoded.
    pub encrypted_content_bytes: usize,
    /// Members of a conversation up to which typing, presence and receipts of others are told in it.
    #[serde(default = "signal_members")]
    pub signal_members: u64,
}

const fn signal_members() -> u64 {
    crate::limits::SIGNAL_MEMBERS
}

impl Default for WelcomeLimits {
    fn default() -> Self {
        Self {
            frame_bytes: crate::limits::MAX_FRAME_BYTES,
            content_bytes: crate::limits::MAX_CONTENT_BYTES,
            encrypted_content_bytes: crate::limits::ENCRYPTED_CONTENT,
            signal_members: signal_members(),
        }
    }
}

/// A range that is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Truncated {
    /// Whose log.
    pub conversation_id: ConversationId,
    /// The first seq not sent.
    #[schema(value_type = u64)]
    pub from_seq: Seq,
    /// The last seq not sent.
    #[schema(value_type = u64)]
    pub head_seq: Seq,
    /// Whether what the client holds of it is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<bool>,
}

/// What resumes the session from now on: it replaces the token of the welcome.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeToken {
    /// The token.
    pub resume_token: String,
}

impl std::fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeToken").finish_non_exhaustive()
    }
}

/// What a `send`, `edit`, `delete`, `read` or `auth` asked for is done; what has no meaning for it is null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The frame's id.
    #[schema(required)]
    pub id: Option<String>,
    /// Where it is stored.
    #[schema(required)]
    pub conversation_id: Option<ConversationId>,
    /// The message's id.
    #[schema(required)]
    pub message_id: Option<EventId>,
    /// The event's number: of the message, its edit or its deletion; of a `read`, where the read mark stands.
    #[schema(required, value_type = Option<u64>)]
    pub seq: Option<Seq>,
    /// When the event was stored.
    #[schema(required)]
    pub created_at: Option<Timestamp>,
    /// Whether it was stored before.
    pub duplicate: bool,
}

/// A member types, or stopped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TypingSignal {
    /// Where.
    pub conversation_id: ConversationId,
    /// Who.
    pub user_id: UserId,
    /// Whether it types now.
    pub on: bool,
}

/// A member has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptSignal {
    /// Where.
    pub conversation_id: ConversationId,
    /// Who.
    pub user_id: UserId,
    /// Up to where.
    #[schema(value_type = u64)]
    pub up_to_seq: Seq,
}

/// Whether a user is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresenceSignal {
    /// Who.
    pub user_id: UserId,
    /// `online`, `away` or `offline`.
    pub status: PresenceStatus,
}

/// Who is there of those that share a conversation with the client's user which carries signals. Who is not named is offline, where it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresenceSnapshot {
    /// Who is online or away, in the order of their ids.
    pub users: Vec<PresenceSignal>,
    /// Whether these are all: not where there are more than 1,000, where a gateway did not answer in time, or where no worker has said how large a conversation is. Of anyone else, `GET /v1/presence` tells.
    pub complete: bool,
}

/// The token ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenExpiring {
    /// Its `exp`: then the connection is closed, or as much later as clocks may differ.
    pub expires_at: Timestamp,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// The id of the frame that it answers.
    #[schema(required)]
    pub id: Option<String>,
    /// Which refusal.
    pub code: Code,
    /// What is wrong this time.
    pub detail: String,
    /// After how long trying again makes sense, in milliseconds.
    #[schema(required)]
    pub retry_after_ms: Option<u64>,
    /// The id of the request in the gateway's logs.
    pub request_id: String,
    /// The bad fields, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// How many more bad fields there are; left out where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_errors: u64,
    /// Of `PRECONDITION_FAILED`: the message's present version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
}

impl ErrorFrame {
    /// The frame that answers with `failure`.
    #[must_use]
    pub fn new(id: Option<String>, failure: Failure, request_id: String) -> Self {
        let Failure {
            code,
            detail,
            retry_after_ms,
            extension,
            replayed: _,
        } = failure;
        Self {
            id,
            code,
            detail,
            retry_after_ms,
            request_id,
            errors: extension.errors,
            more_errors: extension.more_errors,
            current_version: extension.current_version,
        }
    }
}

/// Why a client should connect elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GoawayReason {
    /// This gateway ends; the socket closes.
    Drain,
    /// This gateway has lost the others; keep the connection until another welcomes.
    Degraded,
}

/// The client should connect elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Goaway {
    /// Why.
    pub reason: GoawayReason,
    /// After how long, in milliseconds.
    pub reconnect_after_ms: u64,
}

impl ServerFrame {
    /// The frame as JSON.
    ///
    /// # Errors
    /// Never for frames made by this crate's types.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}
