//! The only client of the workers, for HTTP, WebSocket and gap fetches: commands travel in batches, each answered on its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::rpc::{Target, Workers};
use confab_bus::{Bus, RpcError};
use confab_protocol::chain::chain;
use confab_protocol::command::{Outcome, Request};
use confab_protocol::condition::Monitor;
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::limits;
use confab_protocol::query::{Answer, QUERY_VERSION, Query, QueryOutcome, QueryRequest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::conditions::WORKER_ANSWERS;
use crate::metrics::CommandMetrics;

mod attempt;
mod query_permits;
mod queues;
pub(crate) mod read_marks;
mod sender;
mod settings;
mod shares;
mod submission;

pub(crate) use settings::WorkerClientSettings;

pub(crate) use crate::workers::sender::WorkerSender;
use query_permits::QueryPermits;
use submission::{MAX_ATTEMPTS, Submission, is_undone};

/// A command's outcome.
pub(crate) type CommandOutcome = Result<Outcome, Failure>;

/// Submissions between their callers and the loop.
const QUEUE_CAPACITY: usize = 1024;
/// How much longer than the budget a caller waits, so that a response that was sent at the deadline still arrives.
const ANSWER_GRACE: Duration = Duration::from_millis(200);
/// How often it is looked whether workers have answered for long enough since they did not.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
/// The first attempt has this share of a request's budget, in percent; the retry has the rest.
const FIRST_ATTEMPT: u32 = 40;

/// How commands are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLimits {
    /// How long a command or query may take in all.
    pub(crate) budget: Duration,
    /// Messages to one worker on their way at once, of sends and of read marks each.
    pub(crate) in_flight: usize,
    /// Commands that may wait.
    pub(crate) waiting: usize,
    /// Bytes of commands that may wait.
    pub(crate) waiting_bytes: usize,
}

/// The handle. Clones share it: a send takes one.
#[derive(Debug, Clone)]
pub(crate) struct WorkerClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bus: Bus,
    workers: Arc<Workers>,
    inbox: mpsc::Sender<Submission>,
    queries: QueryPermits,
    limits: CommandLimits,
    metrics: CommandMetrics,
    answers: Arc<Answers>,
    command_answers: Arc<Answers>,
}

/// Whether workers answer commands, or queries, for the log.
#[derive(Debug)]
struct Answers {
    bus: Bus,
    workers: Arc<Workers>,
    monitor: Monitor,
}

impl Answers {
    fn new(bus: &Bus, workers: &Arc<Workers>, of: &str) -> Self {
        Self {
            bus: bus.clone(),
            workers: Arc::clone(workers),
            monitor: Monitor::about(WORKER_ANSWERS, of.to_owned()),
        }
    }

    /// A worker has answered.
    fn came(&self) {
        self.monitor.succeeded();
    }

    /// None came. Where NATS is away, or no worker is heard of, that is told instead, once.
    fn failed(&self, error: &RpcError) {
        let is_of_worker = matches!(
            error,
            RpcError::Timeout | RpcError::NoResponders | RpcError::Refused(_) | RpcError::Wire(_)
        );
        if is_of_worker && self.bus.is_connected() && self.workers.has_others(1, &[]) {
            self.monitor.failed(error);
        }
    }
}

impl WorkerClient {
    /// Logs that workers answer again, even when no more requests are sent, until `stop`.
    pub(crate) async fn settle(self, stop: CancellationToken) {
        let mut ticks = interval(SETTLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for answers in [&self.0.answers, &self.0.command_answers] {
                answers.monitor.settle();
            }
        }
    }

    /// The handle, and the loop behind it.
    pub(crate) fn new(
        bus: Bus,
        workers: Arc<Workers>,
        limits: CommandLimits,
        metrics: CommandMetrics,
    ) -> (Self, WorkerSender) {
        let (inbox, submissions) = mpsc::channel(QUEUE_CAPACITY);
        // A worker that answers the one may not answer the other.
        let [answers, query_answers] =
            ["commands", "queries"].map(|of| Arc::new(Answers::new(&bus, &workers, of)));
        let commands = Self(Arc::new(Inner {
            bus: bus.clone(),
            workers: Arc::clone(&workers),
            inbox,
            queries: QueryPermits::default(),
            limits,
            metrics: metrics.clone(),
            answers: query_answers,
            command_answers: Arc::clone(&answers),
        }));
        let carrier = WorkerSender::new((bus, workers), submissions, answers, limits, metrics);
        (commands, carrier)
    }

    /// Whether NATS is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.bus.is_connected()
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
        if !self.0.bus.is_connected() {
            return Err(away());
        }
        let Some(owner) = requests.first().map(|request| Owner::from(&request.caller)) else {
            return Ok(Vec::new());
        };
        let began = Instant::now();
        let names: Vec<_> = requests
            .iter()
            .map(|request| request.command.name())
            .collect();
        for request in &requests {
            let command = &request.command;
            self.0.metrics.payload(command.name(), command.weight());
        }
        let (answers, outcomes) = oneshot::channel();
        let submission = Submission::new(owner, requests, began + self.0.limits.budget, answers);
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        self.0
            .inbox
            .send(submission)
            .await
            .map_err(|_closed| stopping())?;
        let answered = tokio::time::timeout(self.0.limits.budget + ANSWER_GRACE, outcomes).await;
        let Ok(Ok(outcomes)) = answered else {
            return Err(Failure::of(Code::Timeout));
        };
        for (name, outcome) in names.into_iter().zip(&outcomes) {
            self.0.metrics.command(
                name,
                outcome.as_ref().err().map(|failure| failure.code),
                began.elapsed(),
            );
        }
        Ok(outcomes)
    }

    /// Asks any worker; asks once more when none answers in time, or one says that another may know.
    pub(crate) async fn query(
        &self,
        request_id: String,
        traceparent: Option<String>,
        query: Query,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let name = query.name();
        let request = QueryRequest {
            version: QUERY_VERSION,
            budget_ms: 0,
            request_id,
            traceparent,
            query,
        };
        let outcome = self.ask(request, began + self.0.limits.budget).await;
        if let Ok(answer) = &outcome {
            self.0.metrics.answer(name, answer);
        }
        let code = outcome.as_ref().err().map(|failure| failure.code);
        self.0.metrics.query(name, code, began.elapsed());
        outcome
    }

    async fn ask(&self, mut request: QueryRequest, deadline: Instant) -> QueryOutcome {
        let acquiring = self.0.queries.acquire(&request.query);
        let Ok(Ok(_permit)) = tokio::time::timeout(self.0.limits.budget, acquiring).await else {
            let full = Failure::new(Code::Overloaded, "too many queries wait in this gateway");
            return Err(full.retry_after(1000));
        };
        let mut failure = Failure::of(Code::Timeout);
        let mut not = Vec::new();
        for attempt in 0..MAX_ATTEMPTS {
            let Some(timeout) = attempt_timeout(self.0.limits.budget, attempt, deadline) else {
                break;
            };
            request.budget_ms = milliseconds(timeout);
            let target = self.0.workers.pick(&request.request_id, &not);
            let has_next = attempt + 1 < MAX_ATTEMPTS;
            failure = match self.ask_one((target, has_next), &request, timeout).await {
                Ok(Err(refusal)) if is_undone(&refusal) && self.0.workers.has_others(2, &[]) => {
                    refusal
                }
                Ok(outcome) => {
                    self.0.answers.came();
                    return outcome;
                }
                Err(error) => {
                    let query = request.query.name();
                    self.0.answers.failed(&error);
                    debug!(error = %chain(&error), query, attempt, "a query was not answered");
                    failure_of(&error)
                }
            };
            if let Target::Worker(worker) = target {
                not.push(worker);
            }
        }
        Err(failure)
    }

    /// Asks a worker, for as long as it lives where another may be asked behind it; any other where it is not there.
    async fn ask_one(
        &self,
        (target, has_next): (Target, bool),
        request: &QueryRequest,
        timeout: Duration,
    ) -> Result<QueryOutcome, RpcError> {
        let answered = tokio::select! {
            answered = self.0.bus.query(target, request, timeout) => answered,
            () = self.0.workers.outlived(target), if has_next => Err(RpcError::Timeout),
        };
        if let (Target::Worker(worker), Err(RpcError::NoResponders)) = (target, &answered) {
            self.0.workers.forget(worker);
            return self.0.bus.query(Target::Any, request, timeout).await;
        }
        answered
    }
}

/// Splits commands so that each part fits one NATS message.
fn split(requests: Vec<Request>) -> Vec<Vec<Request>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for request in requests {
        let weight = request.weight();
        if bytes + weight > limits::MAX_RPC_BYTES && bytes > 0 {
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
        RpcError::Disconnected | RpcError::NoResponders | RpcError::Refused(_) => away(),
        RpcError::TooLarge => Failure::of(Code::PayloadTooLarge),
        RpcError::Timeout | RpcError::Wire(_) | RpcError::Failed(_) => Failure::of(Code::Timeout),
    }
}
