//! Records of sessions: who may resume, and from where. Kept in a bucket, asked for among gateways.

use std::fmt;

use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::signal::PresenceStatus;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::gateways::GatewayId;

mod bases;
mod bucket;
mod codec;
mod queries;
#[cfg(test)]
mod testing;

pub use bucket::{Bucket, Found, Put};
pub use queries::{
    Answer, Fence, HeldElsewhere, RecordQueries, RecordReply, RecordRequest, TakeOver,
};

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

/// The SHA-256 of a resume token's secret part. Whoever compares two does so in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// The ownership of a session: of two claims, the greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ownership {
    /// Grows by one at every take-over.
    pub generation: u64,
    /// The take-over (`UUIDv7`): tells two of one generation apart, of which a store that went back knew only one.
    pub take_over: Uuid,
}

/// The record of a session that is connected or may be resumed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The product.
    pub tenant: TenantId,
    /// Whose session it is.
    pub user: UserId,
    /// On which device: a token is good there only.
    pub device: String,
    /// The login that it was opened or resumed with.
    pub login_session: String,
    /// The newest token.
    pub token: TokenHash,
    /// The token used last, as long as it may be used again.
    pub former: Option<TokenHash>,
    /// Who owns it.
    pub owner: Ownership,
    /// The gateway process that holds it, or held it last.
    pub gateway: GatewayId,
    /// What the user said of its presence.
    pub presence: PresenceStatus,
    /// What the client is proven to have.
    pub positions: Vec<Position>,
}

/// The bucket's entry of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Entry {
    /// It is connected or may be resumed.
    Live(Box<Record>),
    /// It ended for good.
    Ended {
        /// The generation that ended.
        generation: u64,
        /// Its tokens that were good: who comes with another learns nothing of the session.
        #[serde(default)]
        tokens: Vec<TokenHash>,
    },
}

impl Record {
    /// Returns what says that the session ended for good.
    #[must_use]
    pub fn to_ended(&self) -> Entry {
        Entry::Ended {
            generation: self.owner.generation,
            tokens: self.former.into_iter().chain([self.token]).collect(),
        }
    }

    /// All but its positions.
    fn without_positions(&self) -> Self {
        Self {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            device: self.device.clone(),
            login_session: self.login_session.clone(),
            token: self.token,
            former: self.former,
            owner: self.owner,
            gateway: self.gateway,
            presence: self.presence,
            positions: Vec::new(),
        }
    }
}

impl Entry {
    /// Of two of one session, the greater one counts: who owns it, or owned it when it ended.
    #[must_use]
    pub fn standing(&self) -> Ownership {
        match self {
            Self::Live(record) => record.owner,
            // What has ended was not taken over in that generation any more.
            Self::Ended { generation, .. } => Ownership {
                generation: *generation,
                take_over: Uuid::max(),
            },
        }
    }
}
