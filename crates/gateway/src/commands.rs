//! The one door to the workers, for HTTP, WebSocket and gap fetches: commands travel in batches, each answered on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::rpc::{Target, WorkerId, Workers};
use confab_bus::{Bus, RpcError};
use confab_protocol::command::{Batch, Outcome, Request, VERSION};
use confab_protocol::error::{Code, Failure};
use confab_protocol::limits;
use confab_protocol::query::{Answer, Query, QueryRequest};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::CommandMetrics;

mod lanes;

use lanes::{Lanes, Submission};

/// A command's outcome.
pub(crate) type CommandOutcome = Result<Outcome, Failure>;

/// Submissions between their callers and the loop.
const INBOX: usize = 1024;
/// Queries on their way at once.
const QUERIES: usize = 256;
/// How much longer than the budget a caller waits, so that a worker's own word at the end of it still comes through.
const GRACE: Duration = Duration::from_millis(200);
/// The first attempt has this share of a request's budget, in percent; the retry has the rest.
const FIRST_ATTEMPT: u32 = 40;

/// How commands are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLimits {
    /// How long a command or query may take in all.
    pub(crate) budget: Duration,
    /// Requests to one worker on their way at once.
    pub(crate) in_flight: usize,
    /// Commands that may wait.
    pub(crate) waiting: usize,
    /// Bytes of commands that may wait.
    pub(crate) waiting_bytes: usize,
}

/// The door. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    bus: Bus,
    inbox: mpsc::Sender<Submission>,
    queries: Arc<Semaphore>,
    limits: CommandLimits,
    metrics: CommandMetrics,
}

impl Commands {
    /// The door, and the loop behind it.
    pub(crate) fn new(
        bus: Bus,
        workers: Arc<Workers>,
        limits: CommandLimits,
        metrics: CommandMetrics,
    ) -> (Self, CommandLoop) {
        let (inbox, submissions) = mpsc::channel(INBOX);
        let queries = Arc::new(Semaphore::new(QUERIES));
        let commands = Self {
            bus: bus.clone(),
            inbox,
            queries,
            limits,
            metrics: metrics.clone(),
        };
        let lanes = Lanes::new(limits.in_flight);
        (
            commands,
            CommandLoop {
                bus,
                workers,
                submissions,
                lanes,
                limits,
                metrics,
                attempts: JoinSet::new(),
            },
        )
    }

    /// Carries out one command. A caller that goes away does not stop it.
    pub(crate) async fn execute(&self, request: Request) -> CommandOutcome {
        let lost = || Err(Failure::of(Code::Internal));
        self.execute_in_order(vec![request])
            .await
            .pop()
            .unwrap_or_else(lost)
    }

    /// Carries out commands of one conversation in their order: they stay together in one message to a worker, but for
    /// more than fits one, which go one after the other.
    pub(crate) async fn execute_in_order(&self, requests: Vec<Request>) -> Vec<CommandOutcome> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for part in split(requests) {
            let count = part.len();
            let answers = self.submit(part).await;
            outcomes.extend(answers.unwrap_or_else(|failure| vec![Err(failure); count]));
        }
        outcomes
    }

    async fn submit(&self, requests: Vec<Request>) -> Result<Vec<CommandOutcome>, Failure> {
        if !self.bus.is_connected() {
            return Err(away());
        }
        let began = Instant::now();
        let names: Vec<_> = requests
            .iter()
            .map(|request| request.command.name())
            .collect();
        for request in &requests {
            let command = &request.command;
            self.metrics.payload(command.name(), command.weight());
        }
        let (answers, outcomes) = oneshot::channel();
        let submission = Submission::new(requests, began + self.limits.budget, answers);
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        self.inbox
            .send(submission)
            .await
            .map_err(|_closed| stopping())?;
        let answered = tokio::time::timeout(self.limits.budget + GRACE, outcomes).await;
        let Ok(Ok(outcomes)) = answered else {
            return Err(Failure::of(Code::Timeout));
        };
        for (name, outcome) in names.into_iter().zip(&outcomes) {
            self.metrics.command(
                name,
                outcome.as_ref().err().map(|failure| failure.code),
                began.elapsed(),
            );
        }
        Ok(outcomes)
    }

    /// Asks any worker; asks once more when none answers in time.
    pub(crate) async fn query(
        &self,
        request_id: String,
        traceparent: Option<String>,
        query: Query,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let deadline = began + self.limits.budget;
        let name = query.name();
        let Ok(Ok(_permit)) =
            tokio::time::timeout(self.limits.budget, self.queries.acquire()).await
        else {
            let full = Failure::new(Code::Overloaded, "too many queries wait in this gateway");
            self.metrics.query(name, Some(full.code), began.elapsed());
            return Err(full.retry_after(1000));
        };
        let mut request = QueryRequest {
            version: VERSION,
            budget_ms: 0,
            request_id,
            traceparent,
            query,
        };
        let mut failure = Failure::of(Code::Timeout);
        for attempt in 0..2 {
            let Some(timeout) = attempt_timeout(self.limits.budget, attempt, deadline) else {
                break;
            };
            request.budget_ms = milliseconds(timeout);
            match self.bus.query(&request, timeout).await {
                Ok(outcome) => {
                    if let Ok(answer) = &outcome {
                        self.metrics.answer(name, answer);
                    }
                    self.metrics.query(
                        name,
                        outcome.as_ref().err().map(|failure| failure.code),
                        began.elapsed(),
                    );
                    return outcome;
                }
                Err(error) => {
                    debug!(%error, query = name, attempt, "a query was not answered");
                    failure = failure_of(&error);
                }
            }
        }
        self.metrics
            .query(name, Some(failure.code), began.elapsed());
        Err(failure)
    }
}

/// Splits commands so that each part fits one NATS message.
fn split(requests: Vec<Request>) -> Vec<Vec<Request>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for request in requests {
        let weight = request.command.weight();
        if bytes + weight > limits::RPC && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += weight;
        if let Some(part) = parts.last_mut() {
            part.push(request);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn attempt_timeout(budget: Duration, attempt: u32, deadline: Instant) -> Option<Duration> {
    let left = deadline.checked_duration_since(Instant::now())?;
    let timeout = if attempt == 0 {
        left.min(budget * FIRST_ATTEMPT / 100)
    } else {
        left
    };
    (timeout > Duration::from_millis(5)).then_some(timeout)
}

fn away() -> Failure {
    Failure::new(Code::Unavailable, "no worker can be reached").retry_after(1000)
}

fn failure_of(error: &RpcError) -> Failure {
    match error {
        RpcError::Disconnected | RpcError::NoResponders => away(),
        RpcError::TooLarge => Failure::of(Code::PayloadTooLarge),
        RpcError::Timeout | RpcError::Wire(_) | RpcError::Failed(_) => Failure::of(Code::Timeout),
    }
}

/// A message to a worker that came to its end.
struct Attempt {
    target: Target,
    submissions: Vec<Submission>,
    result: Result<Vec<CommandOutcome>, RpcError>,
}

/// Gathers what callers submit and sends it, a few messages to each worker at once.
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
    /// Runs until `stop`; what is on its way then is answered first, within the budget.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                Some(attempt) = self.attempts.join_next() => self.ended(attempt),
                Some(submission) = self.submissions.recv() => self.take(submission),
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
        self.route(submission, None);
    }

    fn route(&mut self, submission: Submission, not: Option<WorkerId>) {
        let conversation = submission.conversation();
        let target = conversation.map_or(Target::Any, |id| self.workers.pick(id, not));
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
            let (bus, budget) = (self.bus.clone(), self.limits.budget);
            self.attempts
                .spawn(attempt(bus, budget, target, submissions));
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
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for submission in submissions {
                    submission.answer(&mut outcomes);
                }
            }
            Err(error) => {
                debug!(%error, ?target, "a request was not answered");
                self.failed(target, submissions, &error);
            }
        }
    }

    /// Tries once more elsewhere; a worker that was not there costs no attempt, for it has nothing.
    fn failed(&mut self, target: Target, submissions: Vec<Submission>, error: &RpcError) {
        let gone = matches!((target, error), (Target::Worker(_), RpcError::NoResponders));
        let not = match target {
            Target::Worker(worker) => Some(worker),
            Target::Any => None,
        };
        if let (Some(worker), RpcError::NoResponders | RpcError::Timeout) = (not, error) {
            // Until it says again that it lives; what waits for it need not find out one after the other.
            self.workers.forget(worker);
            for waiting in self.lanes.abandon(target) {
                self.route(waiting, not);
            }
        }
        for mut submission in submissions {
            submission.handed_over |= !error.not_handed_over();
            let ends = matches!(error, RpcError::TooLarge | RpcError::Disconnected)
                || submission.attempts > 1;
            if ends && !gone {
                let failure = if submission.handed_over {
                    Failure::of(Code::Timeout)
                } else {
                    failure_of(error)
                };
                submission.refuse(&failure);
            } else {
                submission.attempts -= u32::from(gone && submission.attempts > 0);
                self.route(submission, not);
            }
        }
    }
}

async fn attempt(
    bus: Bus,
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
    let requests: Vec<_> = submissions
        .iter()
        .flat_map(|submission| submission.requests.iter().cloned())
        .collect();
    let count = requests.len();
    for submission in &mut submissions {
        submission.attempts += 1;
    }
    let Some(timeout) = attempt_timeout(budget, earlier, deadline) else {
        return Attempt {
            target,
            submissions,
            result: Err(RpcError::Timeout),
        };
    };
    let batch = Batch {
        version: VERSION,
        budget_ms: milliseconds(timeout),
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
