//! The loops around the hub: each shard's, the coordinator's, and presence's. Everything that can wake them, and what they want done.

use std::collections::btree_map;
use std::sync::Arc;
use std::time::Duration;

use confab_bus::GatewayId;
use confab_bus::feed::FeedEvent;
use confab_bus::records::Position;
use confab_protocol::error::Failure;
use confab_protocol::ids::{ConversationId, Seq, TenantId};
use confab_protocol::lingering::Announced;
use confab_protocol::query::{EncodedEvent, UserMemberships};
use confab_protocol::signal::{PresenceStatus, Signal};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::account::{Account, SessionKey};
use crate::cluster::presence::PresenceDirectory;
use crate::cluster::signals::{FromGateways, Outbound};
use crate::delivery::send_queue::SendQueue;
use crate::delivery::window::Bounds;
use crate::hub::feed::FeedArrival;
use crate::hub::{
    MembershipLookup, MembershipQuery, NewMembers, Opened, Opening, PresenceChange, Read,
    ReplayLimits, Retry, Shards, Step, Stepped, Ticket,
};
use crate::metrics::WindowMetrics;

mod coordinator;
mod handle;
mod lookups;
mod news;
mod presence;
mod queries;
mod questions;
mod session_news;
mod shard;
mod snapshots;
mod steps_out;
mod telling;
mod throttle;
mod to_shards;
mod wanting;
mod work;

pub(crate) use handle::{HubHandle, HubLoops};
use queries::{CarryingQuery, HostingQuery, MembersQuery};
use shard::ShardLoop;

/// What may wait for a shard, the coordinator or presence: of a session a few things at once.
const INBOX_CAPACITY: usize = 1024;
/// Questions to workers at once, for catching up and memberships.
const MAX_CONCURRENT_QUERIES: usize = 32;
/// How often presence is said and told, and loops that have nothing to do show that they live.
const TICK_PERIOD: Duration = Duration::from_millis(250);

/// What the feed's reader tells a shard.
#[derive(Debug)]
pub(crate) enum FromFeed {
    /// The feed begins with what is new, in this epoch.
    Began(u64),
    /// An event.
    Event(FeedArrival),
    /// An event of before the feed began, for the replay window, with its room in the queue.
    Past(FeedEvent, Option<OwnedSemaphorePermit>),
    /// There is nothing more of before.
    Filled,
}

/// What the coordinator has a shard do.
enum ShardTask {
    Step(Step, oneshot::Sender<Stepped>),
    Close(SessionKey, Arc<Account>, oneshot::Sender<Vec<Position>>),
}

/// What sessions and presence ask of a shard.
enum ShardInput {
    ShardTask(ShardTask),
    Positions(SessionKey, oneshot::Sender<Vec<Position>>),
    Seen(
        SessionKey,
        btree_map::IntoIter<ConversationId, Seq>,
        oneshot::Sender<()>,
    ),
    Drained(SessionKey),
    MembershipLookup(
        SessionKey,
        ConversationId,
        oneshot::Sender<MembershipLookup>,
    ),
    Answered(SessionKey, MembershipQuery, Vec<UserMemberships>),
    Signal(Signal),
    CarryingOf(CarryingQuery),
    Hosting(HostingQuery),
    MembersHere(MembersQuery),
    /// Which conversations that have members here carry signals, in order behind one?
    Hosted(Option<ConversationId>, oneshot::Sender<HostedPage>),
    /// Workers say what is committed, whatever the feed carries.
    Announced(Vec<Announced>),
    /// Tells a change of presence to the sessions of this shard's conversations, and gives it back for the other shards.
    Tell(Box<PresenceChange>, oneshot::Sender<Box<PresenceChange>>),
}

/// Some conversations with their tenants, and behind which there may be more.
type HostedPage = (Vec<(TenantId, ConversationId)>, Option<ConversationId>);

/// A session that is to open, and who waits for that.
type ToOpen = (Opening, oneshot::Sender<Opened>);
/// A session that ends: each shard says what its client has acknowledged.
type ToClose = (SessionKey, Vec<oneshot::Sender<Vec<Position>>>);

/// What presence hears of sessions and shards.
enum PresenceInput {
    Set(SessionKey, PresenceStatus, oneshot::Sender<()>),
    /// A session's client wants to know who is there.
    Snapshot(Arc<Account>, Arc<SendQueue>),
    /// Conversations with their first members here, and users with new ones.
    UserArrival(NewMembers),
}

/// What the hub tells other gateways, and for how long it waits for someone to come back.
pub(crate) struct Peers {
    /// This gateway among them.
    pub(crate) own: GatewayId,
    /// The way to them.
    pub(crate) signals: Outbound,
    /// What they say.
    pub(crate) said: mpsc::Receiver<FromGateways>,
    /// The way to ask them who is there.
    pub(crate) directory: PresenceDirectory,
    /// How long a user without sessions is not told to be offline.
    pub(crate) grace: Duration,
}

/// What is kept for those who come back, how much of it they are replayed, and how many shards share it.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) metrics: WindowMetrics,
    pub(crate) window: Bounds,
    pub(crate) limits: ReplayLimits,
    pub(crate) shards: Shards,
}

/// What a question to a worker, a wait, or a step of the shards comes back with.
enum Completion {
    Read(Read, Result<Vec<EncodedEvent>, Failure>),
    Ranges(Vec<Read>, Result<Vec<Vec<EncodedEvent>>, Failure>),
    SnapshotAnswers(MembershipQuery, Result<Vec<UserMemberships>, Failure>),
    Retry(Retry),
    Stepped(Ticket, Vec<Stepped>),
}

#[cfg(test)]
mod tests;
