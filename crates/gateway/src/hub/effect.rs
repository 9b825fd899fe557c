//! What the hub wants done, for whom, and what is looked at again later.

use std::time::Duration;

use confab_protocol::ids::{ConversationId, Seq, TenantId};
use confab_protocol::query::MembershipsOf;

use super::openings::OpeningSize;
use super::{Opened, SessionKey};

/// What the hub wants done; the answer comes back through its methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Read events of a log from a worker.
    Read(Read),
    /// Ask a worker for memberships.
    Ask(Ask),
    /// Come back with this later.
    Later(Duration, Retry),
    /// The session is open: its events wait behind the welcome. Told are the heads of its conversations.
    Opened(SessionKey, Opened),
    /// Every user connected at the last break was asked for.
    Reconciled,
}

/// Events to read: above `after`, up to and with `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) tenant: TenantId,
    pub(crate) conversation: ConversationId,
    pub(crate) after: Seq,
    pub(crate) up_to: Seq,
    pub(crate) reader: Reader,
}

/// Who lacks the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The conversation's order: the feed has a gap.
    Sequencer,
    /// A session's membership that catches up.
    Entry(SessionKey, Seq),
}

/// Memberships to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) of: Vec<MembershipsOf>,
    pub(crate) purpose: Purpose,
    /// The hub's epoch when it was asked: an answer from before a break proves nothing.
    pub(super) epoch: u64,
    /// The hub's clock when it was first asked: of a session that opened by its record since, an answer proves nothing.
    pub(super) asked: u64,
}

/// What memberships are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Sessions of a size open.
    Opening(OpeningSize, Vec<SessionKey>),
    /// An addition was heard of a conversation that had no local member. Each such question has its number.
    Confirm(u64),
    /// The feed broke.
    Reconcile,
    /// Whether a user is a member, where the hub knows of no membership.
    Standing,
}

/// What is looked at again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Whether the conversation's order still has its gap.
    Gap(ConversationId),
    /// Whether the membership still has to catch up.
    CatchUp(ConversationId, SessionKey, Seq),
    /// Whether the memberships are still wanted.
    Ask(Ask),
    /// Whether sessions still wait for their memberships.
    Open(Vec<SessionKey>),
    /// Whether a session that goes on still waits: it need not.
    OpenWithout(SessionKey),
}
