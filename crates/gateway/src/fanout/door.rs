//! The sessions' door to the hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::ConversationId;
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use super::{FanoutLoop, Heads, INBOX, Input, Neighbours, QUESTIONS, memberships};
use crate::commands::Commands;
use crate::hub::{Account, Hub, SessionKey, Standing};
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
        let hub = Hub::new(Instant::now());
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        let state = FanoutLoop {
            hub,
            inputs,
            commands,
            metrics,
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

    /// Opens a session: from the returned heads on, its events come into `outbox`.
    ///
    /// # Errors
    /// `UNAVAILABLE` when its memberships did not come within `patience`.
    pub(crate) async fn open(
        &self,
        account: Account,
        outbox: Arc<Outbox>,
        patience: Duration,
    ) -> Result<(SessionKey, Heads), Failure> {
        let key = SessionKey(self.keys.fetch_add(1, Ordering::Relaxed));
        let (opened, heads) = oneshot::channel();
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        self.inbox
            .send(Input::Open(key, account, outbox, opened))
            .await
            .map_err(|_closed| stopping())?;
        match tokio::time::timeout(patience, heads).await {
            Ok(Ok(heads)) => Ok((key, heads)),
            Ok(Err(_stopped)) => Err(stopping()),
            Err(_late) => {
                self.close(key).await;
                Err(Failure::new(
                    Code::Unavailable,
                    "the memberships could not be read in time",
                )
                .retry_after(1000))
            }
        }
    }

    /// Ends a session.
    pub(crate) async fn close(&self, key: SessionKey) {
        if self.inbox.send(Input::Close(key)).await.is_err() {
            debug!("a session ends behind the hub");
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
