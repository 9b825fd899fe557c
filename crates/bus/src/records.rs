//! Records of sessions: who may resume, and from where.

use confab_protocol::ids::{ConversationId, Seq};
use serde::{Deserialize, Serialize};

/// Up to where a session's client is proven to have a conversation's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The event that began the membership; of one that ended, its last.
    pub joined: Seq,
    /// The last seq that the client is proven to have, or is not owed.
    pub seq: Seq,
}
