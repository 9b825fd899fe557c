//! What the hub wants done, for whom, and what is looked at again later.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::ids::{ConversationId, Seq, TenantId};
use confab_protocol::query::MembershipsOf;

use super::coordinator::OpeningSize;
use super::{Opened, Step};
use crate::account::{Account, SessionKey};

/// What a shard or the coordinator wants done; the answer comes back through its methods.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Have every shard take its part of a step, and come back with all answers.
    Shards(Ticket, Vec<Step>),
    /// Read events of a log from a worker.
    Read(Read),
    /// Ask a worker for memberships.
    MembershipQuery(MembershipQuery),
    /// Come back with this later.
    Later(Duration, Retry),
    /// The session is open: its events wait behind the welcome. Told are the heads of its conversations.
    Opened(SessionKey, Opened),
    /// Every user connected at the last break was asked for.
    Reconciled,
}

/// What the shards' answers are to.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A session is noted.
    Registered(SessionKey),
    /// What a session missed is weighed.
    Weighed(SessionKey),
    /// A session is entered.
    Entered(SessionKey),
    /// A session is entered without a worker's word.
    EnteredByRecord(SessionKey),
    /// What is held for users is known; it is to be named in a question that counts as asked at this point of the coordinator's clock.
    Held {
        /// The coordinator's epoch and clock when the shards were asked.
        epoch: u64,
        asked: u64,
        of: Vec<Arc<Account>>,
    },
    /// What was told behind a break is taken in; the rest is still to be asked for.
    Told {
        epoch: u64,
        asked: u64,
        more: Vec<MembershipsOf>,
    },
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
    Subscription(SessionKey, Seq),
}

/// Memberships to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MembershipQuery {
    pub(crate) of: Vec<MembershipsOf>,
    pub(crate) purpose: Purpose,
    /// The epoch when it was asked: an answer from before a break proves nothing.
    pub(super) epoch: u64,
    /// The asker's clock when it was first asked: of a session that opened by its record since, an answer proves nothing.
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
    MembershipLookup,
}

/// What is looked at again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Whether the conversation's order still has its gap.
    Gap(ConversationId),
    /// Whether the membership still has to catch up.
    CatchUp(ConversationId, SessionKey, Seq),
    /// Whether the memberships are still wanted.
    MembershipQuery(MembershipQuery),
    /// Whether sessions still wait for their memberships.
    Open(Vec<SessionKey>),
    /// Whether a session that goes on still waits: it need not.
    OpenWithout(SessionKey),
}
