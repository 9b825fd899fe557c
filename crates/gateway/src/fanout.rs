//! The loop around the hub: everything that can wake it, and what it wants done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use confab_bus::feed::FeedEvent;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Answer, EncodedEvent, Query, ReadEvents, UserMemberships};
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use crate::commands::Commands;
use crate::hub::{Account, Ask, Effect, Hub, Read, Retry, SessionKey};
use crate::metrics::FeedMetrics;
use crate::ws::outbox::Outbox;

/// Sessions that may wait to be noted.
const INBOX: usize = 1024;
/// Questions to workers at once, for catching up and memberships.
const QUESTIONS: usize = 32;
/// Events taken from the feed at once.
const RUN: usize = 256;

/// What the feed's reader tells the hub.
#[derive(Debug)]
pub(crate) enum FromFeed {
    /// The feed begins with what is new.
    Began,
    /// An event, with how many wait behind it in the stream.
    Event(FeedEvent, u64),
}

enum Input {
    Open(SessionKey, Account, Arc<Outbox>, oneshot::Sender<Heads>),
    Close(SessionKey),
}

/// The last seq of each of a session's conversations when it opened.
pub(crate) type Heads = Vec<(ConversationId, Seq)>;

/// The sessions' door to the hub.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    inbox: mpsc::Sender<Input>,
    keys: Arc<AtomicU64>,
}

impl Fanout {
    /// The door, and the loop behind it.
    pub(crate) fn new(commands: Commands, metrics: FeedMetrics) -> (Self, FanoutLoop) {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let fanout = Self {
            inbox,
            keys: Arc::new(AtomicU64::new(1)),
        };
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
}

/// What a question to a worker, or a wait, comes back with.
enum Done {
    Read(Read, Result<Vec<EncodedEvent>, Failure>),
    Asked(Ask, Result<Vec<UserMemberships>, Failure>),
    Retry(Retry),
}

/// The hub with everything around it.
pub(crate) struct FanoutLoop {
    hub: Hub,
    inputs: mpsc::Receiver<Input>,
    commands: Commands,
    metrics: FeedMetrics,
    questions: Arc<Semaphore>,
    opening: FxHashMap<SessionKey, oneshot::Sender<Heads>>,
    tasks: JoinSet<Done>,
}

impl FanoutLoop {
    /// Runs until `stop`, or until the feed's reader ends.
    pub(crate) async fn run(mut self, mut feed: mpsc::Receiver<FromFeed>, stop: CancellationToken) {
        let mut events = Vec::with_capacity(RUN);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(input) = self.inputs.recv() => self.input(input),
                count = feed.recv_many(&mut events, RUN) => {
                    if count == 0 {
                        return;
                    }
                    self.hub.tick(Instant::now());
                    for event in events.drain(..) {
                        self.heard(event);
                    }
                }
            }
            self.carry_out();
            self.metrics
                .observe(self.hub.session_count(), self.hub.conversation_count());
        }
    }

    fn heard(&mut self, from_feed: FromFeed) {
        match from_feed {
            FromFeed::Began => {
                self.metrics.reconciling();
                self.hub.reconcile();
            }
            FromFeed::Event(event, pending) => {
                let verdict = self.hub.heard(&event);
                self.metrics.event(verdict, pending);
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Open(key, account, outbox, opened) => {
                self.opening.insert(key, opened);
                self.hub.open(key, account, outbox);
            }
            Input::Close(key) => {
                self.opening.remove(&key);
                self.hub.close(key);
            }
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Read(read, Ok(events))) => self.hub.events_read(&read, events),
            Ok(Done::Read(read, Err(failure))) => {
                debug!(%failure, conversation.id = %read.conversation, "events could not be read");
                self.hub.read_failed(&read);
            }
            Ok(Done::Asked(ask, Ok(answers))) => self.hub.memberships(ask, answers),
            Ok(Done::Asked(ask, Err(failure))) => {
                debug!(%failure, "memberships could not be asked for");
                self.hub.ask_failed(ask);
            }
            Ok(Done::Retry(retry)) => self.hub.retry(retry),
            Err(error) => tracing::error!(%error, "a question of the hub died"),
        }
    }

    fn carry_out(&mut self) {
        for effect in self.hub.effects() {
            match effect {
                Effect::Read(read) => {
                    self.metrics.question("read_events");
                    let (commands, questions) =
                        (self.commands.clone(), Arc::clone(&self.questions));
                    self.tasks.spawn(async move {
                        let _permit = questions.acquire_owned().await;
                        let answer = read_events(&commands, &read).await;
                        Done::Read(read, answer)
                    });
                }
                Effect::Ask(ask) => {
                    self.metrics.question("memberships");
                    let (commands, questions) =
                        (self.commands.clone(), Arc::clone(&self.questions));
                    self.tasks.spawn(async move {
                        let _permit = questions.acquire_owned().await;
                        let answer = memberships(&commands, &ask).await;
                        Done::Asked(ask, answer)
                    });
                }
                Effect::Later(delay, retry) => {
                    self.tasks.spawn(async move {
                        tokio::time::sleep(delay).await;
                        Done::Retry(retry)
                    });
                }
                Effect::Opened(key, heads) => {
                    if let Some(opened) = self.opening.remove(&key)
                        && opened.send(heads).is_err()
                    {
                        debug!("a session left before it was open");
                    }
                }
                Effect::Reconciled => {
                    info!("every user here was asked for again");
                    self.metrics.reconciled();
                }
            }
        }
    }
}

async fn read_events(commands: &Commands, read: &Read) -> Result<Vec<EncodedEvent>, Failure> {
    let query = Query::ReadEvents(ReadEvents {
        tenant: read.tenant.clone(),
        conversation: read.conversation,
        after: read.after,
        up_to: read.up_to,
    });
    match commands
        .query(Uuid::now_v7().to_string(), None, query)
        .await?
    {
        Answer::Events { events } => Ok(events),
        _ => Err(Failure::of(Code::Internal)),
    }
}

async fn memberships(commands: &Commands, ask: &Ask) -> Result<Vec<UserMemberships>, Failure> {
    match commands
        .query(
            Uuid::now_v7().to_string(),
            None,
            Query::Memberships(ask.of.clone()),
        )
        .await?
    {
        Answer::Memberships(answers) => Ok(answers),
        _ => Err(Failure::of(Code::Internal)),
    }
}
