//! Gathers what callers submit and carries it to workers, a few messages to each at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::rpc::{Target, WorkerId, Workers};
use confab_bus::{Bus, RpcError};
use confab_protocol::command::{Batch, VERSION};
use confab_protocol::error::{Code, Failure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::lanes::Lanes;
use super::submission::{ATTEMPTS, Submission};
use super::{CommandLimits, CommandOutcome, INBOX, attempt_timeout, failure_of, milliseconds};
use crate::metrics::CommandMetrics;

/// A gateway that has just begun hears of every worker within a second.
const FIRST_HEARD_TIMEOUT: Duration = Duration::from_millis(1200);

/// A message to a worker that came to its end.
struct Attempt {
    target: Target,
    submissions: Vec<Submission>,
    result: Result<Vec<CommandOutcome>, RpcError>,
}

/// The loop behind the door.
pub(crate) struct CommandLoop {
    bus: Bus,
    workers: Arc<Workers>,
    submissions: mpsc::Receiver<Submission>,
    lanes: Lanes,
    limits: CommandLimits,
    metrics: CommandMetrics,
    attempts: JoinSet<Attempt>,
}

impl CommandLoop {
    pub(super) fn new(
        bus: Bus,
        workers: Arc<Workers>,
        submissions: mpsc::Receiver<Submission>,
        limits: CommandLimits,
        metrics: CommandMetrics,
    ) -> Self {
        Self {
            bus,
            workers,
            submissions,
            lanes: Lanes::new(limits.in_flight),
            limits,
            metrics,
            attempts: JoinSet::new(),
        }
    }

    /// Runs until `stop`; what is on its way then is answered first, within the budget.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                Some(attempt) = self.attempts.join_next() => self.ended(attempt),
                Some(submission) = self.submissions.recv() => {
                    self.take(submission);
                    // What has come meanwhile goes in the same message.
                    for _ in 0..INBOX {
                        let Ok(submission) = self.submissions.try_recv() else {
                            break;
                        };
                        self.take(submission);
                    }
                }
                () = stop.cancelled() => break,
            }
            self.send();
        }
        while let Some(attempt) = self.attempts.join_next().await {
            self.ended(attempt);
        }
    }

    fn take(&mut self, submission: Submission) {
        if self.lanes.waiting() >= self.limits.waiting
            || self.lanes.waiting_bytes() >= self.limits.waiting_bytes
        {
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
        self.lanes.push(target, submission);
    }

    fn send(&mut self) {
        while let Some((target, submissions)) = self.lanes.next(Instant::now()) {
            self.metrics.batch(
                submissions
                    .iter()
                    .map(|submission| submission.requests.len())
                    .sum(),
            );
            let (bus, workers) = (self.bus.clone(), Arc::clone(&self.workers));
            let budget = self.limits.budget;
            self.attempts
                .spawn(attempt(bus, workers, budget, target, submissions));
        }
    }

    fn ended(&mut self, attempt: Result<Attempt, tokio::task::JoinError>) {
        let Attempt {
            target,
            submissions,
            result,
        } = match attempt {
            Ok(attempt) => attempt,
            Err(error) => {
                warn!(%error, "a request to a worker died");
                return;
            }
        };
        self.lanes.finished(target);
        match result {
            Ok(outcomes) => self.answered(target, submissions, outcomes),
            Err(error) => {
                debug!(%error, ?target, "a request was not answered");
                self.failed(target, submissions, &error);
            }
        }
    }

    /// Passes the outcomes on; what the worker did nothing of is tried once more elsewhere, where there is one.
    fn answered(
        &mut self,
        target: Target,
        submissions: Vec<Submission>,
        outcomes: Vec<CommandOutcome>,
    ) {
        let worker = worker_of(target);
        // Where it is not known which one it was, it counts as one of those heard of.
        let count = if worker.is_some() { 1 } else { 2 };
        let mut outcomes = outcomes.into_iter();
        for mut submission in submissions {
            let own: Vec<_> = outcomes.by_ref().take(submission.requests.len()).collect();
            if !submission.may_go_elsewhere(&own) {
                submission.answer(own);
                continue;
            }
            submission.not.extend(worker);
            if self.workers.has_others(count, &submission.not) {
                self.route(submission);
            } else {
                submission.answer(own);
            }
        }
    }

    /// Tries once more elsewhere; a worker that was not there costs no attempt, for it has nothing.
    fn failed(&mut self, target: Target, submissions: Vec<Submission>, error: &RpcError) {
        let gone = matches!((target, error), (Target::Worker(_), RpcError::NoResponders));
        let worker = worker_of(target);
        if let (Some(worker), RpcError::NoResponders | RpcError::Timeout) = (worker, error) {
            // Until it says again that it lives; what waits for it need not find out one after the other.
            self.workers.forget(worker);
            for waiting in self.lanes.abandon(target) {
                self.route(waiting);
            }
        }
        for mut submission in submissions {
            submission.handed_over |= !error.not_handed_over();
            submission.not.extend(worker);
            let ends = matches!(error, RpcError::TooLarge | RpcError::Disconnected)
                || submission.attempts >= ATTEMPTS;
            if ends && !gone {
                let failure = if submission.handed_over {
                    Failure::of(Code::Timeout)
                } else {
                    failure_of(error)
                };
                submission.refuse(&failure);
            } else {
                submission.attempts -= u32::from(gone && submission.attempts > 0);
                self.route(submission);
            }
        }
    }
}

const fn worker_of(target: Target) -> Option<WorkerId> {
    match target {
        Target::Worker(worker) => Some(worker),
        Target::Any => None,
    }
}

async fn attempt(
    bus: Bus,
    workers: Arc<Workers>,
    budget: Duration,
    target: Target,
    mut submissions: Vec<Submission>,
) -> Attempt {
    // The last deadline: one that is about to pass must not cut the others short, and its caller has its own clock.
    let deadlines = submissions.iter().map(|submission| submission.deadline);
    let deadline = deadlines.max().unwrap_or_else(Instant::now);
    let earlier = submissions
        .first()
        .map_or(0, |submission| submission.attempts);
    for submission in &mut submissions {
        submission.attempts += 1;
    }
    if target == Target::Any {
        // Who knows of none could not say when this is sent, and workers would take it for old.
        workers.heard_of_one(FIRST_HEARD_TIMEOUT).await;
    }
    let Some(timeout) = attempt_timeout(budget, earlier, deadline) else {
        return Attempt {
            target,
            submissions,
            result: Err(RpcError::Timeout),
        };
    };
    let requests: Vec<_> = submissions
        .iter()
        .flat_map(|submission| &submission.requests)
        .collect();
    let count = requests.len();
    let batch = Batch {
        version: VERSION,
        budget_ms: milliseconds(timeout),
        sent: Some(workers.sent_now()),
        requests,
    };
    let result = match bus.command(target, &batch, timeout).await {
        Ok(outcomes) if outcomes.0.len() == count => Ok(outcomes.0),
        Ok(_) => Err(RpcError::Timeout),
        Err(error) => Err(error),
    };
    Attempt {
        target,
        submissions,
        result,
    }
}
