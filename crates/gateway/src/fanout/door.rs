//! The sessions' door to the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use confab_bus::records::Position;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use super::questions::{memberships, owner_of_ask, permit};
use super::telling::{AskedFor, Tellings};
use super::work::ClientWork;
use super::{FanoutLoop, INBOX, Input, Neighbours, QUESTIONS, Replay};
use crate::commands::Commands;
use crate::hub::{Account, Hub, Opened, Opening, SessionKey, Standing, Start};
use crate::metrics::{CacheMetrics, FeedMetrics};
use crate::permits::FairPermits;
use crate::presence::Presences;
use crate::ws::outbox::Outbox;

/// Questions to workers at once about memberships that the hub does not know: hardly anyone names a conversation of others.
const LOOKUPS: usize = 2;

/// The sessions' door to the hub.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    inbox: mpsc::Sender<Input>,
    keys: Arc<AtomicU64>,
    commands: Commands,
    cache: CacheMetrics,
    /// Questions to workers about memberships that the hub does not know.
    lookups: Arc<FairPermits>,
}

impl Fanout {
    /// The door, and the loop behind it.
    pub(crate) fn new(
        commands: Commands,
        metrics: FeedMetrics,
        cache: CacheMetrics,
        neighbours: Neighbours,
        replay: Replay,
    ) -> (Self, FanoutLoop) {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let fanout = Self {
            inbox,
            keys: Arc::new(AtomicU64::new(1)),
            commands: commands.clone(),
            cache,
            lookups: FairPermits::new(LOOKUPS),
        };
        let Neighbours {
            own,
            signals,
            said,
            grace,
        } = neighbours;
        let hub = Hub::new(replay.window, replay.limits, Instant::now());
        let questions = FairPermits::new(QUESTIONS);
        let state = FanoutLoop {
            hub,
            inputs,
            commands,
            metrics,
            replays: replay.metrics,
            questions,
            opening: FxHashMap::default(),
            tasks: JoinSet::new(),
            presences: Presences::new(own, grace),
            own,
            signals,
            said,
            wanted: Vec::new(),
            asked_for: AskedFor::default(),
            work: ClientWork::default(),
            tellings: Tellings::default(),
        };
        (fanout, state)
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
        self.inbox
            .send(Input::Open(opening, opened))
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
        self.ask(|positions| Input::Close(key, positions)).await
    }

    /// What a session's client is proven to have by now, where the hub still runs.
    pub(crate) async fn positions(&self, key: SessionKey) -> Option<Vec<Position>> {
        self.ask(|positions| Input::Positions(key, positions)).await
    }

    async fn ask(
        &self,
        question: impl FnOnce(oneshot::Sender<Vec<Position>>) -> Input,
    ) -> Option<Vec<Position>> {
        let (answer, positions) = oneshot::channel();
        if self.inbox.send(question(answer)).await.is_err() {
            debug!("a session is asked for behind the hub");
        }
        positions.await.ok()
    }

    /// A session's client says what it has.
    pub(crate) async fn seen(&self, key: SessionKey, seen: BTreeMap<ConversationId, Seq>) {
        self.tell(|done| Input::Seen(key, seen.into_iter(), done))
            .await;
    }

    /// A session's outbox has room for what was held back.
    pub(crate) async fn drained(&self, key: SessionKey) {
        if self.inbox.send(Input::Drained(key)).await.is_err() {
            debug!("a session speaks behind the hub");
        }
    }

    /// A session says whether its user is there.
    pub(crate) async fn presence(&self, key: SessionKey, status: PresenceStatus) {
        self.tell(|done| Input::Presence(key, status, done)).await;
    }

    /// Tells the hub something, and waits until it has looked at it: a session has one such thing with the hub at a time.
    async fn tell(&self, said: impl FnOnce(oneshot::Sender<()>) -> Input) {
        let (done, is_done) = oneshot::channel();
        let sent = self.inbox.send(said(done)).await;
        if sent.is_err() || is_done.await.is_err() {
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
        self.inbox.send(asked).await.map_err(|_closed| stopping())?;
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
        let _permit = permit(&self.lookups, owner.as_ref()).await;
        let answers = memberships(&self.commands, &ask).await?;
        let all = answers.iter().flat_map(|answer| &answer.memberships);
        let mut present = all.filter(|membership| membership.left.is_none());
        let Some(members) = present.next().map(|membership| membership.members) else {
            return Err(Failure::of(Code::ConversationNotFound));
        };
        self.cache.stale.inc();
        if self
            .inbox
            .send(Input::Answered(key, ask, answers))
            .await
            .is_err()
        {
            debug!("a membership is found behind the hub");
        }
        Ok(members)
    }
}
