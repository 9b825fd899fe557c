//! A shard's loop: the feed comes first, and everyone else has a bounded share of each turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_protocol::chain::chain;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::queries::QUERY_STEP;
use super::throttle::FanOutThrottle;
use super::work::{ClientWork, SEEN_STEP, TELL_STEP};
use super::{Completion, FromFeed, PresenceInput, ShardInput, ShardTask, TICK_PERIOD, questions};
use crate::account::SessionKey;
use crate::cluster::signals::Outbound;
use crate::hub::{Effect, Read, Reader, Shard};
use crate::limits::permits::FairPermits;
use crate::metrics::{FeedMetrics, Part, WindowMetrics};
use crate::workers::WorkerClient;

/// Events taken from the feed at once.
pub(super) const MAX_TURN_EVENTS: usize = 256;
/// For how long answers of workers and large conversations have each one turn; one of each at least.
const TURN_TIME: Duration = Duration::from_millis(1);

/// A shard's loop.
pub(crate) struct ShardLoop {
    /// Which one it is.
    pub(super) number: usize,
    pub(super) shard: Shard,
    pub(super) inputs: mpsc::Receiver<ShardInput>,
    pub(super) todos: mpsc::Receiver<ShardTask>,
    pub(super) presence: mpsc::Sender<PresenceInput>,
    /// Where signals are counted.
    pub(super) signals: Outbound,
    pub(super) commands: WorkerClient,
    pub(super) metrics: FeedMetrics,
    pub(super) replays: WindowMetrics,
    pub(super) shown: ShownGauges,
    pub(super) questions: Arc<FairPermits>,
    pub(super) tasks: JoinSet<Completion>,
    pub(super) work: ClientWork,
}

/// What was last shown of the shard's part of gauges.
#[derive(Debug, Default)]
pub(super) struct ShownGauges {
    conversations: Part,
    window: [Part; 2],
}

impl ShardLoop {
    /// Runs until `stop`, or until the feed's reader ends.
    pub(crate) async fn run(mut self, mut feed: mpsc::Receiver<FromFeed>, stop: CancellationToken) {
        let mut events = Vec::with_capacity(MAX_TURN_EVENTS);
        let mut period = interval(TICK_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pace, mut show_due) = (FanOutThrottle::default(), Instant::now());
        loop {
            let mut input = None;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = feed.recv_many(&mut events, MAX_TURN_EVENTS), if self.shard.may_hear() => {
                    if count == 0 {
                        return;
                    }
                }
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(todo) = self.todos.recv() => input = Some(ShardInput::ShardTask(todo)),
                Some(asked) = self.inputs.recv() => input = Some(asked),
                _ = period.tick() => show_due = Instant::now(),
                () = pace.pause(self.shard.may_rest()), if self.shard.is_pushing() => {}
                () = yield_now(), if !self.work.is_empty() || self.shard.is_leaving() => {}
            }
            let now = Instant::now();
            let finished = self.feed_turn(&mut events, now);
            self.answers_turn(now);
            self.take_in(input);
            self.client_turn();
            self.shard.leave_on();
            self.push_turn(&mut pace);
            self.carry_out();
            self.tell_presence();
            if show_due <= now {
                show_due = now + TICK_PERIOD;
                self.show();
            }
            self.observe(finished);
        }
    }

    /// Pushes events that are on their way through many subscriptions to some more of them.
    fn push_turn(&mut self, pace: &mut FanOutThrottle) {
        let began = Instant::now();
        while self.shard.is_pushing() && pace.begins(self.shard.may_rest(), Instant::now()) {
            self.shard.push_on();
            pace.took(self.shard.is_pushing());
            if began.elapsed() >= TURN_TIME {
                break;
            }
        }
    }

    /// Hands on the events that were taken from the feed; says how many were new ones.
    fn feed_turn(&mut self, events: &mut Vec<FromFeed>, now: Instant) -> u64 {
        self.shard.tick(now);
        let mut finished = 0;
        for event in events.drain(..) {
            finished += u64::from(matches!(event, FromFeed::Event(..)));
            self.heard(event);
        }
        finished
    }

    /// Takes answers of workers, and waits that are over, for a bounded time.
    fn answers_turn(&mut self, now: Instant) {
        while let Some(done) = self.tasks.try_join_next() {
            self.done(done);
            if now.elapsed() >= TURN_TIME {
                break;
            }
        }
    }

    /// Presence learns where there are first members and new ones. Where it has no room it learns that with the next turn.
    fn tell_presence(&mut self) {
        if !self.shard.has_come() {
            return;
        }
        if let Ok(place) = self.presence.try_reserve() {
            place.send(PresenceInput::UserArrival(self.shard.take_come()));
        }
    }

    fn show(&mut self) {
        let ShownGauges {
            conversations,
            window,
        } = &mut self.shown;
        self.metrics
            .conversations(conversations, self.shard.conversation_count());
        let held = self.shard.window();
        let held = (held.events(), held.bytes());
        self.replays.observe(window, held);
        self.replays.replayed(self.shard.take_replays());
        self.metrics.waiting("questions", self.questions.waiting());
    }

    fn observe(&self, finished: u64) {
        let pushing = self.shard.oldest_on_their_way();
        let lag = self.metrics.lag(self.number);
        lag.turned(finished, pushing, Instant::now());
    }

    fn heard(&mut self, from_feed: FromFeed) {
        match from_feed {
            FromFeed::Began(epoch) => self.shard.began(epoch),
            FromFeed::Event(arrived) => {
                let verdict = self.shard.heard_since(&arrived.event, arrived.read);
                self.metrics.event(verdict);
                drop(arrived.room);
            }
            FromFeed::Past(event, _room) => self.shard.fill(&event),
            FromFeed::Filled => {
                self.shard.filled();
                self.metrics.filled();
            }
        }
    }

    /// Does what is asked; gives the rest of what is too much for one step.
    pub(super) fn input(&mut self, input: ShardInput) -> Option<ShardInput> {
        match input {
            ShardInput::ShardTask(ShardTask::Step(mut step, done)) => {
                match self.shard.step(&mut step) {
                    Some(answer) => tell(done, answer),
                    None => return Some(ShardInput::ShardTask(ShardTask::Step(step, done))),
                }
            }
            ShardInput::ShardTask(ShardTask::Close(key, _, positions)) => {
                tell(positions, self.shard.close(key));
            }
            ShardInput::Positions(key, positions) => tell(positions, self.shard.positions(key)),
            ShardInput::Seen(key, mut seen, done) => {
                self.shard.seen(key, seen.by_ref().take(SEEN_STEP));
                if seen.len() > 0 {
                    return Some(ShardInput::Seen(key, seen, done));
                }
                tell(done, ());
            }
            ShardInput::Drained(key) => self.shard.drained(key),
            ShardInput::MembershipLookup(key, conversation, answer) => {
                if let Some(standing) = self.shard.standing(key, conversation) {
                    tell(answer, standing);
                }
            }
            ShardInput::Answered(_, ask, answers) => self.shard.memberships(ask, answers),
            ShardInput::Signal(signal) => self.shard.signal(&signal),
            ShardInput::CarryingOf(query) => {
                return query.step(&self.shard).map(ShardInput::CarryingOf);
            }
            ShardInput::Hosting(query) => return query.step(&self.shard).map(ShardInput::Hosting),
            ShardInput::MembersHere(query) => {
                return query.step(&self.shard).map(ShardInput::MembersHere);
            }
            ShardInput::Hosted(after, answer) => {
                tell(answer, self.shard.hosted_behind(after, QUERY_STEP));
            }
            ShardInput::Announced(announced) => {
                for of_tenant in &announced {
                    self.shard.announced(of_tenant);
                }
            }
            ShardInput::Tell(mut telling, done) => {
                self.shard.tell(&mut telling, self.number, TELL_STEP);
                if !telling.is_told_in(self.number) {
                    return Some(ShardInput::Tell(telling, done));
                }
                tell(done, telling);
            }
        }
        None
    }

    fn done(&mut self, done: Result<Completion, JoinError>) {
        match done {
            Ok(Completion::Read(read, Ok(events))) => self.shard.events_read(&read, events),
            Ok(Completion::Read(read, Err(failure))) => {
                debug!(%failure, conversation.id = %read.conversation, "events could not be read");
                self.shard.read_failed(&read);
            }
            Ok(Completion::Ranges(reads, answer)) => self.ranges_read(reads, answer),
            Ok(Completion::SnapshotAnswers(ask, Ok(answers))) => {
                self.shard.memberships(ask, answers);
            }
            Ok(Completion::SnapshotAnswers(ask, Err(failure))) => {
                debug!(%failure, "memberships could not be asked for");
                self.shard.ask_failed(ask);
            }
            Ok(Completion::Retry(retry)) => self.shard.retry(retry),
            Ok(Completion::Stepped(..)) => {}
            Err(error) => tracing::error!(error = %chain(&error), "a question of the hub died"),
        }
    }

    fn carry_out(&mut self) {
        let mut reads: FxHashMap<SessionKey, Vec<Read>> = FxHashMap::default();
        for effect in self.shard.effects() {
            match effect {
                Effect::Read(read) => match read.reader {
                    Reader::Sequencer => self.ask_for_gap(read),
                    Reader::Subscription(key, _) => reads.entry(key).or_default().push(read),
                },
                Effect::MembershipQuery(ask) => self.ask_for_memberships(ask),
                Effect::Later(delay, retry) => {
                    self.tasks.spawn(async move {
                        tokio::time::sleep(delay).await;
                        Completion::Retry(retry)
                    });
                }
                Effect::Shards(..) | Effect::Opened(..) | Effect::Reconciled => {}
            }
        }
        for reads in questions::together(reads.into_values()) {
            self.ask_for_ranges(reads);
        }
    }
}

/// Gives someone who may have gone meanwhile what it waits for.
pub(super) fn tell<T>(waiting: oneshot::Sender<T>, answer: T) {
    if waiting.send(answer).is_err() {
        debug!("nobody waits for the hub's answer any more");
    }
}
