//! Signals between gateways: typing, receipts, presence. Best effort, not numbered, not replayed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ConversationId, Seq, TenantId, UserId};

/// What a user's sessions say of it together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PresenceStatus {
    /// No session, for longer than the grace period.
    Offline,
    /// Sessions, all of them away.
    Away,
    /// A session that is not away.
    Online,
}

/// A signal about one conversation, on its way to its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The product.
    pub tenant: TenantId,
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// What.
    pub kind: SignalKind,
}

/// What a signal says of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalKind {
    /// It types, or stopped to.
    Typing(bool),
    /// It has read up to this seq.
    Receipt(Seq),
}

/// A gateway's word on the presence of one of its users: one message a change, whatever number of conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The product.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// What its sessions at that gateway say together.
    pub status: PresenceStatus,
    /// In which conversations that is to be told.
    pub conversations: Vec<ConversationId>,
}
