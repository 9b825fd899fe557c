//! The sessions' handle to the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use confab_bus::records::Position;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::lingering::{Announced, Announcement};
use confab_protocol::signal::PresenceStatus;
use futures_util::future::{join_all, try_join_all};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::coordinator::CoordinatorLoop;
use super::lookups::Lookups;
use super::presence::PresenceLoop;
use super::questions::{memberships, owner_of_ask};
use super::session_news::SessionChanges;
use super::shard::{ShardLoop, ShownGauges};
use super::snapshots::tell_nothing;
use super::steps_out::StepQueues;
use super::to_shards::ShardSenders;
use super::work::ClientWork;
use super::{
    INBOX_CAPACITY, MAX_CONCURRENT_QUERIES, Peers, PresenceInput, Replay, ShardInput, ToClose,
    ToOpen,
};
use crate::account::{Account, SessionKey};
use crate::delivery::send_queue::SendQueue;
use crate::delivery::window::Bounds;
use crate::hub::{Coordinator, MembershipLookup, Opened, Opening, Shard, Start, gathered};
use crate::limits::permits::FairPermits;
use crate::metrics::{CacheMetrics, FeedMetrics};
use crate::workers::WorkerClient;

/// How long a session waits for a shard, the coordinator or presence: what is late for longer holds it up no more.
const HUB_TIMEOUT: Duration = Duration::from_secs(5);
/// Spreads a counter over all bits (Knuth, 6.4: the golden ratio).
const HASH_MULTIPLIER: usize = 0x9E37_79B9;

/// The sessions' handle to the hub.
#[derive(Debug, Clone)]
pub(crate) struct HubHandle {
    opens: mpsc::Sender<ToOpen>,
    closes: mpsc::UnboundedSender<ToClose>,
    /// More lingers than workers can tell.
    rechecks: Arc<Notify>,
    shards: ShardSenders,
    presence: mpsc::Sender<PresenceInput>,
    keys: Arc<AtomicU64>,
    /// With which shard room in a send queue begins to be shared next.
    turns: Arc<AtomicUsize>,
    commands: WorkerClient,
    cache: CacheMetrics,
    /// Questions to workers about memberships that the hub does not know.
    lookups: Lookups,
}

/// The loops behind the handle.
pub(crate) struct HubLoops {
    pub(crate) shards: Vec<ShardLoop>,
    pub(crate) coordinator: CoordinatorLoop,
    pub(crate) presence: PresenceLoop,
}

impl HubHandle {
    /// The handle, and the loops behind it.
    pub(crate) fn new(
        commands: WorkerClient,
        metrics: FeedMetrics,
        cache: CacheMetrics,
        peers: Peers,
        replay: Replay,
    ) -> (Self, HubLoops) {
        let (to_presence, for_presence) = mpsc::channel(INBOX_CAPACITY);
        let sessions = Arc::new(SessionChanges::default());
        let (opens, to_open) = mpsc::channel(INBOX_CAPACITY);
        let (closes, to_close) = mpsc::unbounded_channel();
        let rechecks = Arc::new(Notify::new());
        let questions = FairPermits::new(MAX_CONCURRENT_QUERIES);
        let count = replay.shards.count();
        let bytes = replay.window.bytes / count;
        // The shards share what may be kept.
        let bounds = Bounds {
            bytes,
            ..replay.window
        };
        let (mut loops, mut inboxes, mut todos) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let (inbox, inputs) = mpsc::channel(INBOX_CAPACITY);
            let (todo, to_do) = mpsc::channel(INBOX_CAPACITY);
            inboxes.push(inbox);
            todos.push(todo);
            loops.push(ShardLoop {
                number,
                shard: Shard::new(bounds, Instant::now()),
                inputs,
                todos: to_do,
                presence: to_presence.clone(),
                signals: peers.signals.clone(),
                commands: commands.clone(),
                metrics: metrics.clone(),
                replays: replay.metrics.clone(),
                shown: ShownGauges::default(),
                questions: Arc::clone(&questions),
                tasks: JoinSet::new(),
                work: ClientWork::default(),
            });
        }
        let shards = ShardSenders::new(replay.shards, inboxes);
        let coordinator = CoordinatorLoop {
            coordinator: Coordinator::new(replay.shards, replay.limits),
            opens: to_open,
            closes: to_close,
            rechecks: Arc::clone(&rechecks),
            shards: StepQueues::new(todos),
            presence: Arc::clone(&sessions),
            commands: commands.clone(),
            metrics,
            replays: replay.metrics,
            questions,
            opening: FxHashMap::default(),
            tasks: JoinSet::new(),
        };
        let presence = PresenceLoop::new(peers, (sessions, for_presence), shards.clone());
        let hub = Self {
            opens,
            closes,
            rechecks,
            shards,
            presence: to_presence,
            keys: Arc::new(AtomicU64::new(1)),
            turns: Arc::default(),
            commands,
            cache,
            lookups: Lookups::new(),
        };
        let loops = HubLoops {
            shards: loops,
            coordinator,
            presence,
        };
        (hub, loops)
    }

    /// Opens a session: from `start` on, its events come into `send_queue`.
    ///
    /// # Errors
    /// `UNAVAILABLE` when its memberships did not come within `patience`.
    pub(crate) async fn open(
        &self,
        account: Account,
        send_queue: Arc<SendQueue>,
        start: Start,
        patience: Duration,
    ) -> Result<(SessionKey, Opened), Failure> {
        let key = SessionKey(self.keys.fetch_add(1, Ordering::Relaxed));
        let (opened, is_open) = oneshot::channel();
        let opening = Opening {
            key,
            account,
            send_queue,
            start,
        };
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        let mut is_told = false;
        let opening = async {
            let sent = self.opens.send((opening, opened)).await;
            sent.map_err(|_stopped| stopping())?;
            is_told = true;
            is_open.await.map_err(|_stopped| stopping())
        };
        let is_open = timeout(patience, opening).await;
        match is_open {
            Ok(opened) => Ok((key, opened?)),
            Err(_late) => {
                // Nobody waits for what its client has acknowledged. Of one that the coordinator was not told of there is no end.
                if is_told {
                    drop(self.end(key));
                }
                Err(Failure::new(
                    Code::Unavailable,
                    "the memberships could not be read in time",
                )
                .retry_after(1000))
            }
        }
    }

    /// Ends a session; gives what its client has acknowledged, where the hub still runs and no shard is late.
    pub(crate) async fn close(&self, key: SessionKey) -> Option<Vec<Position>> {
        let positions = in_time(try_join_all(self.end(key))).await?;
        positions.ok().map(gathered)
    }

    /// Ends a session, however late the hub is; gives on what each shard's word comes.
    fn end(&self, key: SessionKey) -> Vec<oneshot::Receiver<Vec<Position>>> {
        let answers = (0..self.shards.shards.count()).map(|_| oneshot::channel());
        let (answers, waiting): (Vec<_>, Vec<_>) = answers.unzip();
        if self.closes.send((key, answers)).is_err() {
            debug!("a session ends behind the hub");
        }
        waiting
    }

    /// What a session's client has acknowledged by now, where the hub still runs and no shard is late.
    pub(crate) async fn positions(&self, key: SessionKey) -> Option<Vec<Position>> {
        let ask = |answer| ShardInput::Positions(key, answer);
        let positions = in_time(self.shards.ask_all(ask)).await?;
        positions.map(gathered)
    }

    /// A session's client says what it has. Returns when the hub has looked at it: a session has one such thing with it at a time. A shard
    /// that is late may not hear it, by which more is replayed than need be.
    pub(crate) async fn seen(&self, key: SessionKey, seen: BTreeMap<ConversationId, Seq>) {
        let parts: Vec<BTreeMap<_, _>> = self.shards.shards.split(seen, |(id, _)| *id);
        let parts = parts.into_iter().enumerate();
        let said = parts.filter(|(_, seen)| !seen.is_empty());
        let said = said.map(|(at, seen)| async move {
            let (done, is_done) = oneshot::channel();
            let input = ShardInput::Seen(key, seen.into_iter(), done);
            self.shards.at(at)?.send(input).await.ok()?;
            is_done.await.ok()
        });
        let heard = in_time(join_all(said)).await;
        if heard.is_none_or(|heard| heard.iter().any(Option::is_none)) {
            debug!("a shard did not hear in time what a session has");
        }
    }

    /// A session's send queue has room for what was held back: the shards fill it in turns. Says whether all know that: one that is late is to
    /// be told again.
    pub(crate) async fn drained(&self, key: SessionKey) -> bool {
        // By no rule, so that no session meets the same shard first each time.
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let first = turn.wrapping_mul(HASH_MULTIPLIER) >> 16;
        let telling = self.shards.tell_all(first, || ShardInput::Drained(key));
        in_time(telling).await.is_some()
    }

    /// A session says whether its user is there. Returns when that is heard.
    pub(crate) async fn presence(&self, key: SessionKey, status: PresenceStatus) {
        let (done, is_done) = oneshot::channel();
        let set = PresenceInput::Set(key, status, done);
        let hearing = async {
            self.presence.send(set).await.ok()?;
            is_done.await.ok()
        };
        if in_time(hearing).await.flatten().is_none() {
            debug!("presence did not hear a session in time");
        }
    }

    /// A worker said what is committed, whatever the feed carries.
    pub(crate) async fn announced(&self, announcement: Announcement) {
        let shards = self.shards.shards;
        let mut parts = vec![Vec::new(); shards.count()];
        for Announced {
            tenant,
            heads,
            joined,
        } in announcement.tenants
        {
            let heads: Vec<Vec<_>> = shards.split(heads, |(id, _)| *id);
            let joined: Vec<Vec<_>> = shards.split(joined, |one| one.conversation);
            for ((part, heads), joined) in parts.iter_mut().zip(heads).zip(joined) {
                if !heads.is_empty() || !joined.is_empty() {
                    part.push(Announced {
                        tenant: tenant.clone(),
                        heads,
                        joined,
                    });
                }
            }
        }
        let parts = parts.into_iter().enumerate();
        let told = parts.filter(|(_, part)| !part.is_empty());
        let told = told.map(|(at, part)| async move {
            let shard = self.shards.at(at)?;
            in_time(shard.send(ShardInput::Announced(part))).await?.ok()
        });
        if announcement.is_cut {
            self.rechecks.notify_one();
        }
        if join_all(told).await.iter().any(Option::is_none) {
            debug!("a shard of the hub did not hear a worker in time");
        }
    }

    /// A session's client wants to know who is there: the answer comes into its send queue, where the hub still runs.
    pub(crate) async fn presence_snapshot(&self, account: Account, send_queue: Arc<SendQueue>) {
        let asked = PresenceInput::Snapshot(Arc::new(account), Arc::clone(&send_queue));
        if in_time(self.presence.send(asked)).await.is_none() {
            tell_nothing(&send_queue);
        }
    }

    /// How many members a conversation has of which a session's user is one: as the hub knows, else as a worker says, of whom a session
    /// asks one question at a time, in its `turns`.
    ///
    /// # Errors
    /// `CONVERSATION_NOT_FOUND` when it is no member, else why no worker said so.
    pub(crate) async fn membership(
        &self,
        key: SessionKey,
        conversation: ConversationId,
        turns: &Semaphore,
    ) -> Result<u64, Failure> {
        let (answer, standing) = oneshot::channel();
        let asked = ShardInput::MembershipLookup(key, conversation, answer);
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        let shard = self.shards.of(conversation).ok_or_else(stopping)?;
        let asking = async {
            shard.send(asked).await.ok()?;
            standing.await.ok()
        };
        let late = || Failure::new(Code::Unavailable, "the hub does not answer in time");
        let standing = in_time(asking).await;
        let standing = standing.ok_or_else(|| late().retry_after(1000))?;
        let ask = match standing.ok_or_else(stopping)? {
            MembershipLookup::Member(members) => {
                self.cache.hits.inc();
                return Ok(members);
            }
            MembershipLookup::Unknown(ask) => ask,
        };
        self.cache.misses.inc();
        let owner = owner_of_ask(&ask);
        let _turn = turns.acquire().await;
        let _permit = self.lookups.turn(owner.as_ref()).await;
        let answers = memberships(&self.commands, &ask).await?;
        let all = answers.iter().flat_map(|answer| &answer.memberships);
        let mut present = all.filter(|membership| membership.left.is_none());
        let Some(members) = present.next().map(|membership| membership.members) else {
            self.lookups.refused(owner.as_ref(), Instant::now());
            return Err(Failure::of(Code::ConversationNotFound));
        };
        self.cache.stale.inc();
        let found = ShardInput::Answered(key, ask, answers);
        if !matches!(in_time(shard.send(found)).await, Some(Ok(()))) {
            debug!("the hub does not hear in time of a membership");
        }
        Ok(members)
    }
}

/// Waits for the hub; none when it is late.
async fn in_time<T>(waiting: impl Future<Output = T>) -> Option<T> {
    timeout(HUB_TIMEOUT, waiting).await.ok()
}
