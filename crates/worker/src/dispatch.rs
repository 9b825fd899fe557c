//! Takes what gateways ask, plans it, has it committed or read, and answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::rpc::{CommandIncoming, Incoming, QueryIncoming, Reply, Service};
use confab_protocol::command::{Batch, Command, Outcome, Outcomes, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::query::QueryOutcome;
use confab_protocol::revocation::Revocation;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, error, warn};

use crate::commit::{CommandOutcome, Committer, Item};
use crate::marks::Marks;
use crate::messages;
use crate::metrics::Metrics;
use crate::outbox::{Committed, Publisher};
use crate::planner::{Done, Item as Waiting, Kind, Planner, Work};
use crate::reads;
use crate::settings::Settings;

mod marks;

/// How often a worker says that it lives.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// The loop between gateways and Postgres.
pub(crate) struct Dispatch {
    bus: Bus,
    service: Service,
    committer: Committer,
    publisher: Publisher,
    reads: PgPool,
    queries: Arc<Semaphore>,
    planner: Planner<Pending>,
    marks: Marks<Pending>,
    tasks: JoinSet<Ended>,
    answering: usize,
    metrics: Metrics,
}

/// Queries and answers on their way at once; further queries are refused.
const ANSWERING: usize = 4096;

/// A command, and where its outcome goes.
#[derive(Debug)]
struct Pending {
    request: Request,
    slot: Slot,
}

/// Where a command's outcome goes: into its batch's answer.
#[derive(Debug, Clone)]
struct Slot {
    answering: Arc<Answering>,
    place: usize,
}

/// The answer to a batch of a gateway's, sent when it is complete.
#[derive(Debug)]
struct Answering(Mutex<(Vec<Option<CommandOutcome>>, usize, Option<Reply>)>);

impl Slot {
    /// Sets the outcome; gives the whole answer when it was the last one.
    fn set(&self, outcome: CommandOutcome) -> Option<(Reply, Outcomes)> {
        let mut state = self
            .answering
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (outcomes, missing, reply) = &mut *state;
        if let Some(slot) = outcomes.get_mut(self.place)
            && slot.replace(outcome).is_none()
        {
            *missing -= 1;
        }
        if *missing > 0 {
            return None;
        }
        let all = std::mem::take(outcomes).into_iter().flatten().collect();
        Some((reply.take()?, Outcomes(all)))
    }
}

/// What a task came back from.
enum Ended {
    Work(Done),
    Marks,
    Answer,
}

impl Dispatch {
    pub(crate) fn new(
        (bus, service): (Bus, Service),
        committer: Committer,
        publisher: Publisher,
        reads: PgPool,
        settings: &Settings,
        metrics: Metrics,
    ) -> Self {
        Self {
            bus,
            service,
            committer,
            publisher,
            reads,
            queries: Arc::new(Semaphore::new(settings.queries as usize)),
            planner: Planner::new(settings.caps()),
            marks: Marks::new(),
            tasks: JoinSet::new(),
            answering: 0,
            metrics,
        }
    }

    /// Runs until `stop`, then leaves the service and finishes what it took, within `drain`.
    pub(crate) async fn run(mut self, stop: CancellationToken, drain: Duration) {
        let mut announcements = interval(ANNOUNCE);
        announcements.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                incoming = self.service.next() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => break,
                },
                _ = announcements.tick() => {
                    if let Err(error) = self.service.announce().await {
                        debug!(%error, "the worker could not say that it lives");
                    }
                }
            }
            self.start();
        }
        self.finish(drain).await;
    }

    /// Finishes what was taken, within `drain`.
    async fn finish(mut self, drain: Duration) {
        if let Err(error) = self.service.leave().await {
            debug!(%error, "the worker left without saying so");
        }
        let rest = async {
            self.start();
            while let Some(ended) = self.tasks.join_next().await {
                self.ended(ended);
                self.start();
            }
        };
        if tokio::time::timeout(drain, rest).await.is_err() {
            debug!("commands were left behind at the end of the drain time");
        }
    }

    fn start(&mut self) {
        while let Some(work) = self.planner.next(Instant::now()) {
            self.carry_out(work);
        }
        self.start_marks();
        self.metrics.waiting(self.planner.waiting());
    }

    fn carry_out(&mut self, work: Work<Pending>) {
        let (committer, publisher, metrics) = (
            self.committer.clone(),
            self.publisher.clone(),
            self.metrics.clone(),
        );
        let bus = self.bus.clone();
        match work {
            Work::Batch(items) => {
                self.tasks.spawn(async move {
                    Ended::Work(batch(&committer, &publisher, &metrics, items).await)
                });
            }
            Work::Alone(item) => {
                let span = debug_span!("command", request.id = %item.job.request.request_id);
                let alone = async move {
                    Ended::Work(alone(&committer, &publisher, &bus, &metrics, item).await)
                };
                self.tasks.spawn(alone.instrument(span));
            }
            Work::Expired(items) => {
                for Waiting {
                    job: Pending { request, slot },
                    ..
                } in items
                {
                    self.answer(&request, &slot, Err(Failure::of(Code::Timeout)));
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended::Work(done)) => self.planner.finish(done),
            Ok(Ended::Marks) => self.marks.finish(),
            Ok(Ended::Answer) => self.answering -= 1,
            Err(error) => error!(%error, "a task died"),
        }
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Command(incoming) => self.take_commands(incoming),
            Incoming::Query(incoming) => self.take_query(incoming),
            Incoming::Malformed => self.metrics.malformed(),
        }
    }

    /// Admits a gateway's batch as a whole, or refuses it as a whole: what one connection sent keeps its order. Read marks have
    /// none, and a lane of their own.
    fn take_commands(&mut self, incoming: CommandIncoming) {
        let CommandIncoming {
            batch:
                Batch {
                    budget_ms,
                    requests,
                    ..
                },
            reply,
            received,
        } = incoming;
        let budget = Duration::from_millis(budget_ms.into());
        let count = requests.len();
        let answering = Arc::new(Answering(Mutex::new((
            vec![None; count],
            count,
            Some(reply),
        ))));
        let (planned, bytes) = requests
            .iter()
            .filter(|request| !matches!(request.command, Command::MarkRead(_)))
            .fold((0, 0), |(count, bytes), request| {
                (count + 1, bytes + request.command.weight())
            });
        let admitted = self.planner.admit(planned, bytes, budget);
        for (place, request) in requests.into_iter().enumerate() {
            let slot = Slot {
                answering: Arc::clone(&answering),
                place,
            };
            if matches!(request.command, Command::MarkRead(_)) {
                self.take_mark(received + budget, Pending { request, slot });
                continue;
            }
            match admitted {
                Ok(()) => self.planner.push(waiting(request, received + budget, slot)),
                Err(wait) => {
                    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    self.answer(
                        &request,
                        &slot,
                        Err(Failure::of(Code::Overloaded).retry_after(wait)),
                    );
                }
            }
        }
    }

    fn answer(&mut self, request: &Request, slot: &Slot, outcome: CommandOutcome) {
        self.metrics.command(
            request.command.name(),
            outcome.as_ref().err().map(|failure| failure.code),
        );
        if let Some((reply, outcomes)) = slot.set(outcome) {
            self.answering += 1;
            self.tasks.spawn(async move {
                send(reply, &outcomes).await;
                Ended::Answer
            });
        }
    }

    fn take_query(&mut self, incoming: QueryIncoming) {
        let QueryIncoming {
            request,
            reply,
            received,
        } = incoming;
        let deadline = received + Duration::from_millis(request.budget_ms.into());
        let (pool, permits, metrics) = (
            self.reads.clone(),
            Arc::clone(&self.queries),
            self.metrics.clone(),
        );
        let overloaded = self.answering >= ANSWERING;
        self.answering += 1;
        let span =
            debug_span!("query", request.id = %request.request_id, query = request.query.name());
        let answer = async move {
            let outcome: QueryOutcome = if overloaded {
                Err(Failure::of(Code::Overloaded).retry_after(500))
            } else {
                let _permit = permits.acquire().await;
                let began = Instant::now();
                match deadline.checked_duration_since(began) {
                    Some(left) => {
                        let outcome = reads::answer(&pool, &request.query, left).await;
                        metrics.query(request.query.name(), began.elapsed());
                        outcome
                    }
                    // Nobody waits for it any more.
                    None => Err(Failure::of(Code::Timeout)),
                }
            };
            if let Err(error) = reply.send(&outcome).await {
                debug!(%error, "a query could not be answered");
            }
            Ended::Answer
        };
        self.tasks.spawn(answer.instrument(span));
    }
}

fn waiting(request: Request, deadline: Instant, slot: Slot) -> Waiting<Pending> {
    let kind = match &request.command {
        Command::SendMessage(send) => Kind::Send(request.caller.user.clone(), send.client_id),
        _ => Kind::Alone,
    };
    let (conversation, bytes) = (request.command.conversation(), request.command.weight());
    Waiting {
        conversation,
        kind,
        bytes,
        deadline,
        job: Pending { request, slot },
    }
}

async fn send(reply: Reply, outcomes: &Outcomes) {
    if let Err(error) = reply.send(outcomes).await {
        debug!(%error, "commands could not be answered");
    }
}

/// Commits a batch of messages; the senders are answered first, then the events are published.
async fn batch(
    committer: &Committer,
    publisher: &Publisher,
    metrics: &Metrics,
    waiting: Vec<Waiting<Pending>>,
) -> Done {
    let (began, count) = (Instant::now(), waiting.len());
    let mut conversations: Vec<_> = waiting
        .iter()
        .filter_map(|item| item.conversation)
        .collect();
    conversations.sort_unstable();
    conversations.dedup();
    let (mut items, mut slots, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for Waiting {
        deadline,
        job: Pending { request, slot },
        ..
    } in waiting
    {
        let Command::SendMessage(message) = request.command else {
            continue;
        };
        match messages::send(request.caller, message) {
            Ok(append) => {
                items.push(Item { append, deadline });
                slots.push(slot);
            }
            Err(failure) => done.push((slot, Err(failure))),
        }
    }
    let end = committer.batch(&items).await;
    let took = began.elapsed();
    done.extend(slots.into_iter().zip(end.outcomes));
    for (slot, outcome) in done {
        metrics.command(
            "send_message",
            outcome.as_ref().err().map(|failure| failure.code),
        );
        if let Some((reply, outcomes)) = slot.set(outcome) {
            send(reply, &outcomes).await;
        }
    }
    // Only where something was committed: the repeat of a message whose worker died finds it stored.
    if crate::fault::exits_after_commit() && !end.committed.is_empty() && items.iter().any(is_fault)
    {
        std::process::abort();
    }
    publish(publisher, end.committed);
    Done::Batch(conversations, count, took)
}

async fn alone(
    committer: &Committer,
    publisher: &Publisher,
    bus: &Bus,
    metrics: &Metrics,
    item: Waiting<Pending>,
) -> Done {
    let Waiting {
        deadline,
        conversation,
        job: Pending { request, slot },
        ..
    } = item;
    let (outcome, committed) = committer.alone(&request, deadline).await;
    metrics.command(
        request.command.name(),
        outcome.as_ref().err().map(|failure| failure.code),
    );
    let revoked = match &outcome {
        Ok(Outcome::Revoked(revocation)) => Some(revocation.clone()),
        _ => None,
    };
    if let Some((reply, outcomes)) = slot.set(outcome) {
        send(reply, &outcomes).await;
    }
    publish(publisher, committed);
    if let Some(revocation) = revoked {
        announce(bus, &revocation).await;
    }
    Done::Alone(conversation)
}

/// Tells gateways of a revocation at once. It stands in Postgres, where they look for it every few seconds all the same.
async fn announce(bus: &Bus, revocation: &Revocation) {
    let announced = tokio::time::timeout(ANNOUNCE, bus.announce_revocation(revocation)).await;
    match announced {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "gateways learn of a revocation later"),
        Err(_late) => warn!("gateways learn of a revocation later: NATS takes nothing"),
    }
}

fn publish(publisher: &Publisher, committed: impl IntoIterator<Item = Committed>) {
    for committed in committed {
        publisher.publish(committed);
    }
}

/// Whether a message asks for a death between its commit and its publishing; heeded only where tests compiled that in.
fn is_fault(item: &Item) -> bool {
    item.append
        .message
        .payload
        .as_str()
        .starts_with(r#"{"kind":"x-fault""#)
}
