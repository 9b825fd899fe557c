//! Gathers what callers submit and carries it to workers, a few messages to each at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::rpc::{BatchSender, Inbox, Liveness, Target, Token, WorkerId, Workers};
use confab_bus::{Bus, BusError, RpcError};
use confab_protocol::chain::chain;
use confab_protocol::command::{Batch, COMMAND_VERSION, Part, Request};
use confab_protocol::error::{Code, Failure};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::attempt::{Attempt, PartOutcome};
use super::submission::{MAX_ATTEMPTS, Submission};
use super::{Answers, CommandLimits, QUEUE_CAPACITY, attempt_timeout, failure_of, milliseconds};
use crate::metrics::CommandMetrics;
use crate::workers::queues::{Message, WorkerQueues};

/// A gateway that has just begun hears of every worker within a second.
const FIRST_HEARD_TIMEOUT: Duration = Duration::from_millis(1200);

/// The loop behind the handle.
pub(crate) struct WorkerSender {
    bus: Bus,
    workers: Arc<Workers>,
    submissions: mpsc::Receiver<Submission>,
    queues: WorkerQueues,
    limits: CommandLimits,
    metrics: CommandMetrics,
    answers: Arc<Answers>,
    attempts: FxHashMap<Token, Attempt>,
    /// When it is looked whether an attempt is over: each has one entry.
    looks: BTreeSet<(Instant, Token)>,
    /// What was refused while a worker that was given up may still do it, by when that is over. No more than was on the way to workers that
    /// were given up.
    held: BTreeMap<(Instant, Token), Submission>,
    is_stopping: bool,
    next_token: u64,
    sending: JoinSet<(Token, Result<(), RpcError>)>,
}

/// What wakes the loop.
enum Wake {
    Submitted(Submission),
    Answered(Option<(Token, Result<Part, RpcError>)>),
    Sent(Result<(Token, Result<(), RpcError>), JoinError>),
    Due,
    Stop,
}

impl WorkerSender {
    pub(super) fn new(
        (bus, workers): (Bus, Arc<Workers>),
        submissions: mpsc::Receiver<Submission>,
        answers: Arc<Answers>,
        limits: CommandLimits,
        metrics: CommandMetrics,
    ) -> Self {
        Self {
            bus,
            workers,
            submissions,
            answers,
            queues: WorkerQueues::new(&limits),
            limits,
            metrics,
            attempts: FxHashMap::default(),
            looks: BTreeSet::new(),
            held: BTreeMap::new(),
            is_stopping: false,
            next_token: 0,
            sending: JoinSet::new(),
        }
    }

    /// Runs until `stop`; what is on its way then is answered first, within the budget.
    ///
    /// # Errors
    /// When the connection to NATS was closed.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        let mut inbox = Inbox::open(&self.bus).await?;
        let sender = inbox.sender();
        while !(self.is_stopping && self.attempts.is_empty() && self.held.is_empty()) {
            let due = self.due();
            let wake = tokio::select! {
                Some(sent) = self.sending.join_next() => Wake::Sent(sent),
                part = inbox.next() => Wake::Answered(part),
                Some(submission) = self.submissions.recv(), if !self.is_stopping => Wake::Submitted(submission),
                () = sleep_until(due) => Wake::Due,
                () = stop.cancelled(), if !self.is_stopping => Wake::Stop,
            };
            match wake {
                Wake::Answered(Some((token, Ok(part)))) => self.heard(token, part),
                Wake::Answered(Some((token, Err(error)))) => self.failed(token, &error),
                Wake::Answered(None) => return Err(BusError::Disconnected),
                Wake::Sent(Ok((token, Err(error)))) => self.failed(token, &error),
                Wake::Sent(Ok((_, Ok(())))) => {}
                Wake::Sent(Err(error)) => {
                    warn!(error = %chain(&error), "a message to a worker died");
                }
                Wake::Submitted(submission) => self.take_all(submission),
                Wake::Due => self.look(Instant::now()),
                Wake::Stop => self.is_stopping = true,
            }
            if !self.is_stopping {
                self.send(&sender);
            }
        }
        Ok(())
    }

    /// When there is something to look at next.
    fn due(&self) -> Option<Instant> {
        let look = self.looks.first().map(|(at, _)| *at);
        let held = self.held.first_key_value().map(|((at, _), _)| *at);
        look.into_iter().chain(held).min()
    }

    /// Takes a submission, and what has come meanwhile: it goes in the same message.
    fn take_all(&mut self, first: Submission) {
        self.take(first);
        for _ in 0..QUEUE_CAPACITY {
            let Ok(submission) = self.submissions.try_recv() else {
                break;
            };
            self.take(submission);
        }
    }

    fn take(&mut self, submission: Submission) {
        if !self.queues.admits(submission.owner()) {
            let full = Failure::new(Code::Overloaded, "too many commands wait in this gateway");
            submission.refuse(&full.retry_after(1000));
            return;
        }
        self.route(submission);
    }

    fn route(&mut self, submission: Submission) {
        let not = &submission.not;
        let target = match submission.conversation() {
            Some(conversation) => self.workers.pick(conversation, not),
            // Whoever it is: a worker that is heard of is known to read what is meant for it now.
            None => self.workers.pick(submission.request_id(), not),
        };
        self.queues.push(target, submission);
    }

    fn send(&mut self, sender: &BatchSender) {
        let now = Instant::now();
        while let Some(message) = self.queues.next(now) {
            self.begin(sender, now, message);
        }
        self.metrics.waiting(self.queues.waiting());
    }

    fn begin(&mut self, sender: &BatchSender, now: Instant, mut message: Message) {
        let (target, submissions) = (message.target, &mut message.submissions);
        // The last deadline: one that is about to pass must not cut the others short, and its caller has its own clock.
        let deadlines = submissions.iter().map(|submission| submission.deadline);
        let deadline = deadlines.max().unwrap_or(now);
        let earlier = submissions
            .first()
            .map_or(0, |submission| submission.attempts);
        for submission in submissions {
            submission.begin_attempt(now);
        }
        let token = self.token();
        let timeout = attempt_timeout(self.limits.budget, earlier, deadline).unwrap_or_default();
        let attempt = Attempt::new(message, now, timeout, deadline);
        let requests = attempt.requests();
        self.metrics.batch(requests.len());
        self.looks.insert((attempt.next_look(now), token));
        self.attempts.insert(token, attempt);
        let (sender, workers) = (sender.clone(), Arc::clone(&self.workers));
        self.sending.spawn(async move {
            let send = send(&sender, &workers, (token, target), &requests, now + timeout);
            let sent = tokio::time::timeout(timeout, send).await;
            (token, sent.unwrap_or(Err(RpcError::Timeout)))
        });
    }

    const fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    /// A part of an answer came. What was given up meanwhile is answered otherwise.
    fn heard(&mut self, token: Token, part: Part) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        self.metrics.part();
        self.answers.came();
        let before = attempt.unheard();
        let PartOutcome { complete, owners } = attempt.part(Instant::now(), part);
        let after = attempt.unheard();
        if after < before {
            let (target, class) = (attempt.target(), attempt.class());
            self.queues.finished(target, class, &owners);
            if after == 0 {
                self.queues.ended(target, class, attempt.large());
            }
        }
        let worker = attempt.worker();
        if attempt.is_complete() {
            self.attempts.remove(&token);
        }
        for submission in complete {
            self.answered(worker, submission);
        }
    }

    /// Looks at the attempts whose time has come, and finds out about refusals that nothing can make wrong any more.
    fn look(&mut self, now: Instant) {
        while let Some(submission) = self.take_held(now) {
            self.find_out(submission);
        }
        while let Some((_, token)) = self.looks.first().copied().filter(|(at, _)| *at <= now) {
            self.looks.pop_first();
            let Some(attempt) = self.attempts.get(&token) else {
                continue;
            };
            if attempt.is_over(now, self.liveness(attempt)) {
                self.failed(token, &RpcError::Timeout);
            } else {
                self.looks.insert((attempt.next_look(now), token));
            }
        }
    }

    fn take_held(&mut self, now: Instant) -> Option<Submission> {
        let held = self.held.first_entry();
        let held = held.filter(|held| held.key().0 <= now)?;
        Some(held.remove())
    }

    /// What was refused in doubt is tried once more. A gateway that stops tries nothing more, and tells it as unknown.
    fn find_out(&mut self, mut submission: Submission) {
        submission.take_back_refusals();
        if submission.count() == 0 || self.is_stopping {
            submission.answer();
        } else {
            self.route(submission);
        }
    }

    fn liveness(&self, attempt: &Attempt) -> Option<Liveness> {
        attempt.worker().map(|worker| self.workers.liveness(worker))
    }

    /// Passes outcomes on; what the worker did nothing of is tried once more elsewhere, where there is one.
    fn answered(&mut self, worker: Option<WorkerId>, mut submission: Submission) {
        if submission.may_go_elsewhere() {
            submission.not.extend(worker);
            if self.workers.has_others(1, &submission.not) {
                submission.begin_again();
                self.route(submission);
                return;
            }
        }
        self.end(submission);
    }

    /// Tells the outcomes, but for refusals in doubt: what one worker refuses, another that was given up may carry out before the caller hears
    /// of that, where what it is refused for changes meanwhile.
    fn end(&mut self, submission: Submission) {
        match submission.in_doubt_until() {
            Some(until) => {
                let token = self.token();
                // Where its budget ends before, nobody waits for more than that it is unknown.
                self.held
                    .insert((until.min(submission.deadline), token), submission);
            }
            None => submission.answer(),
        }
    }

    /// Tries once more elsewhere; a worker that was not there costs no attempt, for it has nothing.
    fn failed(&mut self, token: Token, error: &RpcError) {
        let Some(attempt) = self.attempts.remove(&token) else {
            return;
        };
        let (target, worker) = (attempt.target(), attempt.worker());
        self.answers.failed(error);
        debug!(error = %chain(error), worker = ?target, "a message was not answered");
        if attempt.unheard() > 0 {
            let owners = attempt.unheard_owners();
            let class = attempt.class();
            self.queues.finished(target, class, &owners);
            self.queues.ended(target, class, attempt.large());
        }
        let gone = matches!(
            (target, error),
            (
                Target::Worker(_),
                RpcError::NoResponders | RpcError::Refused(_)
            )
        );
        let is_silent = match error {
            RpcError::NoResponders => true,
            RpcError::Timeout => attempt.is_silent(Instant::now(), self.liveness(&attempt)),
            _ => false,
        };
        if let Some(worker) = worker.filter(|_| is_silent) {
            // Until it says again that it lives; what waits for it need not find out one after the other.
            self.workers.forget(worker);
            for waiting in self.queues.abandon(Target::Worker(worker)) {
                self.route(waiting);
            }
        }
        let open_until = attempt.open_until();
        for mut submission in attempt.into_incomplete() {
            if !error.not_handed_over() {
                submission.handed_over = true;
                submission.open_until = submission.open_until.max(Some(open_until));
            }
            submission.not.extend(worker);
            let ends = matches!(error, RpcError::TooLarge | RpcError::Disconnected)
                || submission.attempts >= MAX_ATTEMPTS;
            if ends && !gone {
                let failure = if submission.handed_over {
                    Failure::of(Code::Timeout)
                } else {
                    failure_of(error)
                };
                submission.fail(&failure);
                self.end(submission);
            } else {
                submission.attempts -= u32::from(gone && submission.attempts > 0);
                self.route(submission);
            }
        }
    }
}

async fn send(
    sender: &BatchSender,
    workers: &Workers,
    (token, target): (Token, Target),
    requests: &[Arc<Request>],
    deadline: Instant,
) -> Result<(), RpcError> {
    if target == Target::Any {
        // Who knows of none could not say when this is sent, and workers would take it for old.
        workers.heard_of_one(FIRST_HEARD_TIMEOUT).await;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let batch = Batch {
        version: COMMAND_VERSION,
        budget_ms: milliseconds(left),
        sent: Some(workers.sent_now()),
        requests: requests.iter().map(AsRef::as_ref).collect(),
    };
    sender.send(token, target, &batch).await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
