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

use super::questions::memberships;
use super::{FanoutLoop, INBOX, Input, Neighbours, QUESTIONS, Replay};
use crate::commands::Commands;
use crate::hub::{Account, Hub, Opened, Opening, SessionKey, Standing, Start};
use crate::metrics::{CacheMetrics, FeedMetrics};
use crate::presence::Presences;
use crate::ws::outbox::Outbox;

/// The sessions' door to the hub.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    inbox: mpsc::Sender<Input>,
    keys: Arc<AtomicU64>,
    commands: Commands,
    cache: CacheMetrics,
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
        };
        let Neighbours {
            own,
            signals,
            said,
            grace,
        } = neighbours;
        let hub = Hub::new(replay.window, replay.limits, Instant::now());
        let questions = Arc::new(Semaphore::new(QUESTIONS));
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
        if self.inbox.send(Input::Seen(key, seen)).await.is_err() {
            debug!("a session speaks behind the hub");
        }
    }

    /// A session's outbox has room for what was held back.
    pub(crate) async fn drained(&self, key: SessionKey) {
        if self.inbox.send(Input::Drained(key)).await.is_err() {
            debug!("a session speaks behind the hub");
        }
    }

    /// A session says whether its user is there.
    pub(crate) async fn presence(&self, key: SessionKey, status: PresenceStatus) {
        let said = Input::Presence(key, status);
        if self.inbox.send(said).await.is_err() {
            debug!("a session speaks behind the hub");
        }
    }

    /// How many members a conversation has of which a session's user is one: as the hub knows, else as a worker says.
    ///
    /// # Errors
    /// `CONVERSATION_NOT_FOUND` when it is no member, else why no worker said so.
    pub(crate) async fn membership(
        &self,
        key: SessionKey,
        conversation: ConversationId,
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
        let answers = memberships(&self.commands, &ask).await?;
        let all = answers.iter().flat_map(|answer| &answer.memberships);
        let mut present = all.filter(|membership| membership.left.is_none());
        let Some(members) = present.next().map(|membership| membership.members) else {
            return Err(Failure::of(Code::ConversationNotFound));
        };
        self.cache.stale.inc();
        if self
            .inbox
            .send(Input::Answered(ask, answers))
            .await
            .is_err()
        {
            debug!("a membership is found behind the hub");
        }
        Ok(members)
    }
}
