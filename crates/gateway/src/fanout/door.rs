//! The sessions' door to the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use confab_bus::records::Position;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::PresenceStatus;
use futures_util::future::join_all;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use super::coordinator::CoordinatorLoop;
use super::lookups::Lookups;
use super::presence::PresenceLoop;
use super::questions::{memberships, owner_of_ask};
use super::shard::{ShardLoop, Shown};
use super::to_shards::ToShards;
use super::work::ClientWork;
use super::{ForCoordinator, ForPresence, INBOX, Input, Neighbours, QUESTIONS, Replay};
use crate::commands::Commands;
use crate::hub::{
    Account, Coordinator, Opened, Opening, SessionKey, Shard, Standing, Start, gathered,
};
use crate::metrics::{CacheMetrics, FeedMetrics};
use crate::permits::FairPermits;
use crate::window::Bounds;
use crate::ws::outbox::Outbox;

/// Spreads a counter over all bits (Knuth, 6.4: the golden ratio).
const SPREAD: usize = 0x9E37_79B9;

/// The sessions' door to the hub.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    coordinator: mpsc::Sender<ForCoordinator>,
    shards: ToShards,
    presence: mpsc::Sender<ForPresence>,
    keys: Arc<AtomicU64>,
    /// With which shard room in a send queue begins to be shared next.
    turns: Arc<AtomicUsize>,
    commands: Commands,
    cache: CacheMetrics,
    /// Questions to workers about memberships that the hub does not know.
    lookups: Lookups,
}

/// The loops behind the door.
pub(crate) struct Loops {
    pub(crate) shards: Vec<ShardLoop>,
    pub(crate) coordinator: CoordinatorLoop,
    pub(crate) presence: PresenceLoop,
}

impl Fanout {
    /// The door, and the loops behind it.
    pub(crate) fn new(
        commands: Commands,
        metrics: FeedMetrics,
        cache: CacheMetrics,
        neighbours: Neighbours,
        replay: Replay,
    ) -> (Self, Loops) {
        let (to_presence, for_presence) = mpsc::channel(INBOX);
        let (of_sessions, sessions) = mpsc::unbounded_channel();
        let (to_coordinator, for_coordinator) = mpsc::channel(INBOX);
        let questions = FairPermits::new(QUESTIONS);
        let count = replay.shards.count();
        let bytes = replay.window.bytes / count;
        // The shards share what may be kept.
        let bounds = Bounds {
            bytes,
            ..replay.window
        };
        let (mut loops, mut inboxes, mut todos) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let (inbox, inputs) = mpsc::channel(INBOX);
            let (todo, to_do) = mpsc::channel(INBOX);
            inboxes.push(inbox);
            todos.push(todo);
            loops.push(ShardLoop {
                number,
                shard: Shard::new(bounds, Instant::now()),
                inputs,
                todos: to_do,
                presence: to_presence.clone(),
                signals: neighbours.signals.clone(),
                commands: commands.clone(),
                metrics: metrics.clone(),
                replays: replay.metrics.clone(),
                shown: Shown::default(),
                questions: Arc::clone(&questions),
                tasks: JoinSet::new(),
                work: ClientWork::default(),
            });
        }
        let shards = ToShards::new(replay.shards, inboxes);
        let coordinator = CoordinatorLoop {
            coordinator: Coordinator::new(replay.shards, replay.limits),
            inputs: for_coordinator,
            shards: todos,
            presence: of_sessions,
            commands: commands.clone(),
            metrics,
            replays: replay.metrics,
            questions,
            opening: FxHashMap::default(),
            tasks: JoinSet::new(),
        };
        let presence = PresenceLoop::new(neighbours, (sessions, for_presence), shards.clone());
        let fanout = Self {
            coordinator: to_coordinator,
            shards,
            presence: to_presence,
            keys: Arc::new(AtomicU64::new(1)),
            turns: Arc::default(),
            commands,
            cache,
            lookups: Lookups::new(),
        };
        let loops = Loops {
            shards: loops,
            coordinator,
            presence,
        };
        (fanout, loops)
    }

    /// Opens a session: from `start` on, its events come into `outbox`.
    ///
    /// # Errors
    /// `UNAVAILABLE` when its memberships did not come within `patience`.
    pub(crate) async fn open(
        &self,
        account: Account,
        outbox: Arc<Outbox>,
        start: Start,
        patience: Duration,
    ) -> Result<(SessionKey, Opened), Failure> {
        let key = SessionKey(self.keys.fetch_add(1, Ordering::Relaxed));
        let (opened, is_open) = oneshot::channel();
        let opening = Opening {
            key,
            account,
            outbox,
            start,
        };
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        self.coordinator
            .send(ForCoordinator::Open(opening, opened))
            .await
            .map_err(|_closed| stopping())?;
        match tokio::time::timeout(patience, is_open).await {
            Ok(Ok(opened)) => Ok((key, opened)),
            Ok(Err(_stopped)) => Err(stopping()),
            Err(_late) => {
                let _positions = self.close(key).await;
                Err(Failure::new(
                    Code::Unavailable,
                    "the memberships could not be read in time",
                )
                .retry_after(1000))
            }
        }
    }

    /// Ends a session; gives what its client is proven to have, where the hub still runs.
    pub(crate) async fn close(&self, key: SessionKey) -> Option<Vec<Position>> {
        let answers = (0..self.shards.shards.count()).map(|_| oneshot::channel());
        let (answers, waiting): (Vec<_>, Vec<_>) = answers.unzip();
        let close = ForCoordinator::Close(key, answers);
        if self.coordinator.send(close).await.is_err() {
            debug!("a session ends behind the hub");
        }
        let mut positions = Vec::with_capacity(waiting.len());
        for answer in waiting {
            positions.push(answer.await.ok()?);
        }
        Some(gathered(positions))
    }

    /// What a session's client is proven to have by now, where the hub still runs.
    pub(crate) async fn positions(&self, key: SessionKey) -> Option<Vec<Position>> {
        let ask = |answer| Input::Positions(key, answer);
        self.shards.ask_all(ask).await.map(gathered)
    }

    /// A session's client says what it has. Returns when the hub has looked at it: a session has one such thing with it at a time.
    pub(crate) async fn seen(&self, key: SessionKey, seen: BTreeMap<ConversationId, Seq>) {
        let parts: Vec<BTreeMap<_, _>> = self.shards.shards.split(seen, |(id, _)| *id);
        let parts = parts.into_iter().enumerate();
        let said = parts.filter(|(_, seen)| !seen.is_empty());
        let said = said.map(|(at, seen)| async move {
            let (done, is_done) = oneshot::channel();
            let input = Input::Seen(key, seen.into_iter(), done);
            self.shards.at(at)?.send(input).await.ok()?;
            is_done.await.ok()
        });
        if join_all(said).await.iter().any(Option::is_none) {
            debug!("the hub ended before it heard a session");
        }
    }

    /// A session's outbox has room for what was held back: the shards fill it in turns.
    pub(crate) async fn drained(&self, key: SessionKey) {
        // By no rule, so that no session meets the same shard first each time.
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let first = turn.wrapping_mul(SPREAD) >> 16;
        self.shards.tell_all(first, || Input::Drained(key)).await;
    }

    /// A session says whether its user is there. Returns when that is heard.
    pub(crate) async fn presence(&self, key: SessionKey, status: PresenceStatus) {
        let (done, is_done) = oneshot::channel();
        let set = ForPresence::Set(key, status, done);
        if self.presence.send(set).await.is_err() || is_done.await.is_err() {
            debug!("the hub ended before it heard a session");
        }
    }

    /// A session's client wants to know who is there: the answer comes into its outbox, where the hub still runs.
    pub(crate) async fn presence_snapshot(&self, account: Account, outbox: Arc<Outbox>) {
        let asked = ForPresence::Snapshot(Arc::new(account), outbox);
        if self.presence.send(asked).await.is_err() {
            debug!("the hub ended before it heard a session");
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
        let asked = Input::Standing(key, conversation, answer);
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        let shard = self.shards.of(conversation).ok_or_else(stopping)?;
        shard.send(asked).await.map_err(|_closed| stopping())?;
        let ask = match standing.await.map_err(|_closed| stopping())? {
            Standing::Member(members) => {
                self.cache.hits.inc();
                return Ok(members);
            }
            Standing::Unknown(ask) => ask,
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
        if shard
            .send(Input::Answered(key, ask, answers))
            .await
            .is_err()
        {
            debug!("a membership is found behind the hub");
        }
        Ok(members)
    }
}
