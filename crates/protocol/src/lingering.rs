//! What workers announce of commits that are not in the stream of events: keys, no contents.

use serde::{Deserialize, Serialize};

use crate::ids::{ConversationId, Seq, TenantId, UserId};

/// Why commits are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementKind {
    /// They linger: they are announced again each second while they do.
    Lingering,
    /// They cannot be published and are stepped over: they are announced this once.
    SteppedOver,
}

/// A message of a worker to all gateways: these events are committed, whatever the stream carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Why.
    pub kind: AnnouncementKind,
    /// True if more lingers than is told: then every user is to be asked again.
    pub is_cut: bool,
    /// Which, by tenant.
    pub tenants: Vec<Announced>,
}

/// The announcement for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The product.
    pub tenant: TenantId,
    /// The newest seq of each conversation: it exists, and so do all before it.
    pub heads: Vec<(ConversationId, Seq)>,
    /// Memberships that began.
    pub joined: Vec<Joined>,
}

/// Users whose memberships begin with an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Where.
    pub conversation: ConversationId,
    /// The event.
    pub seq: Seq,
    /// Some of those that it names; others may stand in another entry.
    pub users: Vec<UserId>,
}

impl Announced {
    /// With nothing yet.
    #[must_use]
    pub const fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            heads: Vec::new(),
            joined: Vec::new(),
        }
    }
}
