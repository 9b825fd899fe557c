//! A session as the coordinator knows it.

use std::sync::Arc;

use confab_protocol::ids::ConversationId;
use confab_protocol::query::Membership;

use super::missed::{Missed, MissedRange};
use crate::account::Account;
use crate::hub::{Opened, Start};

/// A session, and how far its opening is.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) account: Arc<Account>,
    pub(super) phase: Phase,
    /// When it opened, by the coordinator's clock.
    pub(super) opened: u64,
}

/// How far the opening of a session is. In every phase but two something is on its way that leads to the next.
#[derive(Debug)]
pub(super) enum Phase {
    /// The shards are told of it.
    Registering(Box<Start>),
    /// Its memberships are asked for.
    PendingQuery(Box<PendingQuery>),
    /// The shards weigh what it missed.
    PendingReplay(Box<PendingReplay>),
    /// The shards enter its memberships, asked for in this epoch.
    Entering(Box<Opened>, u64),
    Open,
}

/// A session that waits for its memberships.
#[derive(Debug)]
pub(super) struct PendingQuery {
    pub(super) start: Start,
    pub(super) memberships: Vec<Membership>,
    pub(super) ended: Vec<Membership>,
    /// Where the next page begins.
    pub(super) after: Option<ConversationId>,
    /// The epoch in which the first page was asked for.
    pub(super) epoch: u64,
}

/// A session of which is decided what it is replayed.
#[derive(Debug, Default)]
pub(super) struct PendingReplay {
    pub(super) epoch: u64,
    /// Memberships that it is not owed.
    pub(super) over: Vec<Membership>,
    /// What is clear.
    pub(super) missed: Missed,
    /// What may be too much, by shard.
    pub(super) lacks: Vec<Vec<MissedRange>>,
}
