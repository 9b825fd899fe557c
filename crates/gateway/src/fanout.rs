//! The loop around the hub: everything that can wake it, and what it wants done.

use std::collections::btree_map;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::GatewayId;
use confab_bus::feed::FeedEvent;
use confab_bus::records::Position;
use confab_protocol::error::Failure;
use confab_protocol::ids::{ConversationId, Seq, TenantId};
use confab_protocol::query::{EncodedEvent, UserMemberships};
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::commands::Commands;
use crate::feed::FeedArrival;
use crate::hub::{
    Ask, Effect, Hub, Opened, Opening, Read, Reader, ReplayLimits, Retry, SessionKey, Standing,
};
use crate::metrics::{FeedMetrics, WindowMetrics};
use crate::permits::FairPermits;
use crate::presence::Presences;
use crate::signals::{FromGateways, Outbound};
use crate::window::Bounds;

mod door;
mod pace;
mod questions;
mod signals;
mod telling;
mod work;

pub(crate) use door::Fanout;
use pace::Pace;
use telling::{AskedFor, Tellings};
use work::{ClientWork, SEEN_STEP};

/// Sessions that may wait to be noted.
const INBOX: usize = 1024;
/// Questions to workers at once, for catching up and memberships.
const QUESTIONS: usize = 32;
/// Events taken from the feed at once.
const RUN: usize = 256;
/// For how long answers of workers, what other gateways say, and large conversations have each one turn; one of each at least.
const TURN_TIME: Duration = Duration::from_millis(1);
/// How often presence is said and told.
const PRESENCE: Duration = Duration::from_millis(250);

/// What the feed's reader tells the hub.
#[derive(Debug)]
pub(crate) enum FromFeed {
    /// The feed begins with what is new.
    Began,
    /// An event.
    Event(FeedArrival),
    /// An event of before the feed began, for the replay window, with its room in the queue.
    Past(FeedEvent, Option<OwnedSemaphorePermit>),
    /// There is nothing more of before.
    Filled,
}

enum Input {
    Open(Opening, oneshot::Sender<Opened>),
    Close(SessionKey, oneshot::Sender<Vec<Position>>),
    Positions(SessionKey, oneshot::Sender<Vec<Position>>),
    Seen(
        SessionKey,
        btree_map::IntoIter<ConversationId, Seq>,
        oneshot::Sender<()>,
    ),
    Drained(SessionKey),
    Presence(SessionKey, PresenceStatus, oneshot::Sender<()>),
    Standing(SessionKey, ConversationId, oneshot::Sender<Standing>),
    Answered(SessionKey, Ask, Vec<UserMemberships>),
}

/// What the hub tells other gateways, and for how long it waits for someone to come back.
pub(crate) struct Neighbours {
    /// This gateway among them.
    pub(crate) own: GatewayId,
    /// The way to them.
    pub(crate) signals: Outbound,
    /// What they say.
    pub(crate) said: mpsc::Receiver<FromGateways>,
    /// How long a user without sessions is not told to be offline.
    pub(crate) grace: Duration,
}

/// What is kept for those who come back, and how much of it they are replayed.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) metrics: WindowMetrics,
    pub(crate) window: Bounds,
    pub(crate) limits: ReplayLimits,
}

/// What a question to a worker, or a wait, comes back with.
enum Done {
    Read(Read, Result<Vec<EncodedEvent>, Failure>),
    Ranges(Vec<Read>, Result<Vec<Vec<EncodedEvent>>, Failure>),
    Asked(Ask, Result<Vec<UserMemberships>, Failure>),
    Retry(Retry),
}

/// The hub with everything around it.
pub(crate) struct FanoutLoop {
    hub: Hub,
    inputs: mpsc::Receiver<Input>,
    commands: Commands,
    metrics: FeedMetrics,
    replays: WindowMetrics,
    questions: Arc<FairPermits>,
    /// Who waits for a session to be open, and what the session then says of its user.
    opening: FxHashMap<SessionKey, (oneshot::Sender<Opened>, PresenceStatus)>,
    tasks: JoinSet<Done>,
    presences: Presences,
    own: GatewayId,
    signals: Outbound,
    said: mpsc::Receiver<FromGateways>,
    /// Conversations whose members' presence the other gateways are to repeat.
    wanted: Vec<(TenantId, ConversationId)>,
    /// Conversations of which other gateways want the presence of members here.
    asked_for: AskedFor,
    work: ClientWork,
    tellings: Tellings,
}

impl FanoutLoop {
    /// Runs until `stop`, or until the feed's reader ends. In each turn the feed comes first, and everyone else has a bounded share.
    pub(crate) async fn run(mut self, mut feed: mpsc::Receiver<FromFeed>, stop: CancellationToken) {
        let mut events = Vec::with_capacity(RUN);
        let mut presence = interval(PRESENCE);
        presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pace, mut presence_due) = (Pace::default(), Instant::now());
        loop {
            let mut input = None;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = feed.recv_many(&mut events, RUN), if self.hub.may_hear() => {
                    if count == 0 {
                        return;
                    }
                }
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(asked) = self.inputs.recv() => input = Some(asked),
                Some(said) = self.said.recv() => self.hear_gateway(said),
                _ = presence.tick() => presence_due = Instant::now(),
                () = pace.pause(self.hub.may_rest()), if self.hub.is_pushing() => {}
                () = yield_now(), if self.has_work() => {}
            }
            let now = Instant::now();
            let finished = self.feed_turn(&mut events, now);
            self.answers_turn(now);
            self.take_in(input);
            self.client_turn();
            if presence_due <= now {
                presence_due = now + PRESENCE;
                self.keep_presence();
            }
            self.presence_turn();
            self.push_turn(&mut pace);
            self.carry_out();
            self.observe(finished);
        }
    }

    /// Pushes events that are on their way through many subscriptions to some more of them.
    fn push_turn(&mut self, pace: &mut Pace) {
        let began = Instant::now();
        while self.hub.is_pushing() && pace.begins(self.hub.may_rest(), Instant::now()) {
            self.hub.push_on();
            pace.took(self.hub.is_pushing());
            if began.elapsed() >= TURN_TIME {
                break;
            }
        }
    }

    /// Whether something waits for one of the turns to come.
    fn has_work(&self) -> bool {
        !self.work.is_empty() || self.has_presence()
    }

    /// Hands on the events that were taken from the feed; says how many were new ones.
    fn feed_turn(&mut self, events: &mut Vec<FromFeed>, now: Instant) -> u64 {
        self.hub.tick(now);
        let mut finished = 0;
        for event in events.drain(..) {
            finished += u64::from(matches!(event, FromFeed::Event(..)));
            self.heard(event);
        }
        finished
    }

    /// Takes answers of workers, waits that are over, and what other gateways say, for a bounded time.
    fn answers_turn(&mut self, now: Instant) {
        while let Some(done) = self.tasks.try_join_next() {
            self.done(done);
            if now.elapsed() >= TURN_TIME {
                break;
            }
        }
        let began = Instant::now();
        while let Ok(said) = self.said.try_recv() {
            self.hear_gateway(said);
            if began.elapsed() >= TURN_TIME {
                break;
            }
        }
    }

    fn observe(&self, finished: u64) {
        let (sessions, conversations) = (self.hub.session_count(), self.hub.conversation_count());
        self.metrics.observe(sessions, conversations);
        let pushing = self.hub.oldest_on_their_way();
        self.metrics
            .hub_lag()
            .turned(finished, pushing, Instant::now());
    }

    fn heard(&mut self, from_feed: FromFeed) {
        match from_feed {
            FromFeed::Began => {
                self.metrics.reconciling();
                self.hub.reconcile();
            }
            FromFeed::Event(arrived) => {
                let verdict = self.hub.heard_since(&arrived.event, arrived.read);
                self.metrics.event(verdict, arrived.pending);
                drop(arrived.room);
            }
            FromFeed::Past(event, _room) => self.hub.fill(&event),
            FromFeed::Filled => {
                self.hub.filled();
                self.metrics.filled();
            }
        }
    }

    /// Does what a session asks; gives the rest of what is too much for one step.
    fn input(&mut self, input: Input) -> Option<Input> {
        match input {
            // Who gave up has said so already, of a session that was not there yet.
            Input::Open(_, opened) if opened.is_closed() => {}
            Input::Open(opening, opened) => {
                let presence = opening.start.presence.unwrap_or(PresenceStatus::Online);
                self.opening.insert(opening.key, (opened, presence));
                self.hub.open(opening);
            }
            Input::Close(key, positions) => {
                self.opening.remove(&key);
                self.presences.closed(key);
                let left = self.hub.close(key);
                self.give(positions, left);
            }
            Input::Positions(key, positions) => {
                let now = self.hub.positions(key);
                self.give(positions, now);
            }
            Input::Seen(key, mut seen, done) => {
                self.hub.seen(key, seen.by_ref().take(SEEN_STEP));
                if seen.len() > 0 {
                    return Some(Input::Seen(key, seen, done));
                }
                looked_at(done);
            }
            Input::Drained(key) => self.hub.drained(key),
            Input::Presence(key, status, done) => {
                self.note_joined();
                let hub = &self.hub;
                self.presences.set(key, status, |of| hub.carrying_of(of));
                looked_at(done);
            }
            Input::Standing(key, conversation, answer) => {
                if let Some(standing) = self.hub.standing(key, conversation)
                    && answer.send(standing).is_err()
                {
                    debug!("a session left before it had its answer");
                }
            }
            Input::Answered(_, ask, answers) => self.hub.memberships(ask, answers),
        }
        None
    }

    fn give(&self, to: oneshot::Sender<Vec<Position>>, positions: Vec<Position>) {
        if to.send(positions).is_err() {
            debug!("nobody waits for a session's positions any more");
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Read(read, Ok(events))) => self.hub.events_read(&read, events),
            Ok(Done::Read(read, Err(failure))) => {
                debug!(%failure, conversation.id = %read.conversation, "events could not be read");
                self.hub.read_failed(&read);
            }
            Ok(Done::Ranges(reads, answer)) => self.ranges_read(reads, answer),
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
        let mut reads: FxHashMap<SessionKey, Vec<Read>> = FxHashMap::default();
        for effect in self.hub.effects() {
            match effect {
                Effect::Read(read) => match read.reader {
                    Reader::Sequencer => self.ask_for_gap(read),
                    Reader::Entry(key, _) => reads.entry(key).or_default().push(read),
                },
                Effect::Ask(ask) => self.ask_for_memberships(ask),
                Effect::Later(delay, retry) => {
                    self.tasks.spawn(async move {
                        tokio::time::sleep(delay).await;
                        Done::Retry(retry)
                    });
                }
                Effect::Opened(key, opened) => {
                    let Some((waiting, presence)) = self.opening.remove(&key) else {
                        continue;
                    };
                    if waiting.send(opened).is_err() {
                        debug!("a session left before it was open");
                    }
                    self.note_joined();
                    if let Some(account) = self.hub.account(key) {
                        let hub = &self.hub;
                        self.presences
                            .opened_with(key, account, presence, |of| hub.carrying_of(of));
                    }
                }
                Effect::Reconciled => {
                    info!("every user here was asked for again");
                    self.metrics.reconciled();
                }
            }
        }
        for reads in questions::together(reads.into_values()) {
            self.ask_for_ranges(reads);
        }
    }
}

/// Tells a session that what it said was looked at. One that ended meanwhile does not wait for it.
fn looked_at(done: oneshot::Sender<()>) {
    if done.send(()).is_err() {
        debug!("a session left before the hub had heard it");
    }
}

#[cfg(test)]
mod tests;
