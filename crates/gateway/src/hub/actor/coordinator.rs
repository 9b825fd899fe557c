//! The coordinator's loop: sessions that open and end, and what is asked for again when the feed began anew.

use std::sync::Arc;
use std::time::Instant;

use confab_bus::records::Position;
use confab_protocol::chain::chain;
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::session_news::SessionChanges;
use super::shard::tell;
use super::steps_out::StepQueues;
use super::{Completion, ShardTask, TICK_PERIOD, ToClose, ToOpen, questions};
use crate::account::SessionKey;
use crate::hub::{Coordinator, Effect, FIRST_EPOCH, Opened, Opening, Step, Ticket};
use crate::limits::permits::FairPermits;
use crate::metrics::Replays;
use crate::metrics::{FeedMetrics, WindowMetrics};
use crate::workers::WorkerClient;

/// The coordinator's loop.
pub(crate) struct CoordinatorLoop {
    pub(super) coordinator: Coordinator,
    pub(super) opens: mpsc::Receiver<ToOpen>,
    /// Without a bound of its own, for an end must not be lost: each session ends once that this loop knows, or has among `opens`. While it
    /// stands still it learns of no others, so that there are no more than sockets and [`INBOX_CAPACITY`](super::INBOX_CAPACITY).
    pub(super) closes: mpsc::UnboundedReceiver<ToClose>,
    /// More lingers than workers can tell.
    pub(super) rechecks: Arc<Notify>,
    pub(super) shards: StepQueues,
    pub(super) presence: Arc<SessionChanges>,
    pub(super) commands: WorkerClient,
    pub(super) metrics: FeedMetrics,
    pub(super) replays: WindowMetrics,
    pub(super) questions: Arc<FairPermits>,
    /// Who waits for a session to be open, and what the session then says of its user.
    pub(super) opening: FxHashMap<SessionKey, (oneshot::Sender<Opened>, PresenceStatus)>,
    pub(super) tasks: JoinSet<Completion>,
}

impl CoordinatorLoop {
    /// Runs until `stop`, or until the feed's reader ends.
    pub(crate) async fn run(mut self, mut epochs: watch::Receiver<u64>, stop: CancellationToken) {
        let mut period = interval(TICK_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = epochs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let epoch = *epochs.borrow_and_update();
                    self.metrics.reconciling();
                    self.coordinator.began(epoch);
                }
                Some(done) = self.tasks.join_next() => self.done(done),
                Some((key, positions)) = self.closes.recv() => self.close(key, positions),
                () = self.shards.room(), if self.shards.is_waiting() => self.shards.send_on(),
                Some((opening, opened)) = self.opens.recv(), if !self.shards.is_waiting() => {
                    self.open(opening, opened);
                }
                () = self.rechecks.notified() => self.coordinator.recheck(Instant::now()),
                _ = period.tick() => {
                    self.show();
                    self.coordinator.ask_waiting_openings();
                    self.coordinator.recheck_on(Instant::now());
                }
            }
            self.carry_out(&epochs);
            self.metrics.coordinator().turned(0, None, Instant::now());
        }
    }

    fn show(&mut self) {
        let truncated = self.coordinator.take_truncated();
        self.replays.replayed(Replays {
            truncated,
            ..Replays::default()
        });
        self.metrics.sessions_now(self.coordinator.session_count());
        let [small, large] = self.coordinator.waiting_openings();
        self.metrics.waiting("small_openings", small);
        self.metrics.waiting("large_openings", large);
    }

    fn open(&mut self, opening: Opening, opened: oneshot::Sender<Opened>) {
        // Who gave up has said so already, of a session that was not there yet.
        if opened.is_closed() {
            return;
        }
        let presence = opening.start.presence.unwrap_or(PresenceStatus::Online);
        self.opening.insert(opening.key, (opened, presence));
        self.coordinator.open(opening);
    }

    /// The shards are told behind all that they were told of the session, and presence before them: who is in no shard's answer any more is
    /// known to have ended.
    fn close(&mut self, key: SessionKey, positions: Vec<oneshot::Sender<Vec<Position>>>) {
        self.opening.remove(&key);
        let Some(account) = self.coordinator.close(key) else {
            return;
        };
        self.presence.closed(key);
        let positions = positions.into_iter();
        let parts =
            positions.map(|positions| ShardTask::Close(key, Arc::clone(&account), positions));
        self.shards.send(parts);
    }

    fn done(&mut self, done: Result<Completion, JoinError>) {
        match done {
            Ok(Completion::SnapshotAnswers(ask, Ok(answers))) => {
                self.coordinator.memberships(ask, answers);
            }
            Ok(Completion::SnapshotAnswers(ask, Err(failure))) => {
                debug!(%failure, "memberships could not be asked for");
                self.coordinator.ask_failed(ask);
            }
            Ok(Completion::Retry(retry)) => self.coordinator.retry(retry),
            Ok(Completion::Stepped(ticket, answers)) => self.coordinator.stepped(ticket, answers),
            Ok(Completion::Read(..) | Completion::Ranges(..)) => {}
            Err(error) => {
                tracing::error!(error = %chain(&error), "a question of the coordinator died");
            }
        }
    }

    fn carry_out(&mut self, epochs: &watch::Receiver<u64>) {
        for effect in self.coordinator.effects() {
            match effect {
                Effect::Shards(ticket, steps) => self.have_done(ticket, steps),
                Effect::MembershipQuery(ask) => {
                    let asked =
                        questions::ask_for_memberships(&self.commands, &self.questions, ask);
                    self.metrics.question("memberships");
                    self.tasks.spawn(asked);
                }
                Effect::Later(delay, retry) => {
                    self.tasks.spawn(async move {
                        tokio::time::sleep(delay).await;
                        Completion::Retry(retry)
                    });
                }
                Effect::Opened(key, opened) => self.opened(key, opened),
                Effect::Reconciled => {
                    // One of before the last break says nothing: the next turn begins anew.
                    let epoch = *epochs.borrow();
                    if epoch > FIRST_EPOCH && !epochs.has_changed().unwrap_or(true) {
                        info!("every user here was asked for again");
                        self.metrics.reconciled();
                    }
                }
                Effect::Read(_) => {}
            }
        }
    }

    /// Presence learns of the session before its client can say anything of its user.
    fn opened(&mut self, key: SessionKey, opened: Opened) {
        let Some((waiting, status)) = self.opening.remove(&key) else {
            return;
        };
        if let Some(account) = self.coordinator.account(key).map(Arc::clone) {
            self.presence.opened(key, account, status);
        }
        tell(waiting, opened);
    }

    /// Has each shard take its part of a step.
    fn have_done(&mut self, ticket: Ticket, steps: Vec<Step>) {
        let mut answers = Vec::with_capacity(steps.len());
        let parts = steps.into_iter().map(|step| {
            let (answer, answered) = oneshot::channel();
            answers.push(answered);
            ShardTask::Step(step, answer)
        });
        self.shards.send(parts);
        // However late a shard is, its answer is waited for: who waits for the session has a deadline.
        self.tasks.spawn(async move {
            let mut all = Vec::with_capacity(answers.len());
            for answer in answers {
                // A shard that ended answers nothing: the gateway is stopping.
                all.push(answer.await.unwrap_or_default());
            }
            Completion::Stepped(ticket, all)
        });
    }
}
