//! Takes what gateways ask, plans it, has it committed or read, and answers.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::rpc::{CommandIncoming, HEARTBEAT_INTERVAL, Incoming, Service};
use confab_protocol::chain::chain;
use confab_protocol::command::{Batch, Command, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::query::QueryKind;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error};

mod answering;
mod marks;
mod queries;
mod work;

use answering::{Parts, Slot};
use queries::Queries;
use work::{alone, batch, code};

use crate::commit::{CommandOutcome, Committer};
use crate::database::Pool;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::origin::span_of;
use crate::outbox::Publisher;
use crate::planner::{Done, Item as Waiting, Kind, Open, Planner, Ticket, Work};
use crate::query_queue::Slot as QuerySlot;
use crate::settings::Settings;

/// After how long a command is worth another try that was refused behind another.
const MIN_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a worker that leaves goes on taking what it is sent: gateways hear of it in a fraction of that.
const LEAVE_DELAY: Duration = Duration::from_millis(200);
/// How long the end of its subscriptions may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The loop between gateways and Postgres.
pub(crate) struct Dispatch {
    bus: Bus,
    service: Service,
    committer: Committer,
    publisher: Publisher,
    reads: Pool,
    queries: Queries,
    planner: Planner<Pending>,
    marks: Marks<Pending>,
    /// When it was last told that marks were given up because of a lock.
    lock_warned: Option<Instant>,
    tasks: JoinSet<Ended>,
    /// What each task carries out: should it die, its places are given back.
    running: FxHashMap<task::Id, Running>,
    answering: usize,
    metrics: Metrics,
}

/// A command, when it came, and where its outcome goes.
#[derive(Debug)]
struct Pending {
    /// By reference: while it waits it is moved from queue to queue.
    request: Box<Request>,
    received: Instant,
    slot: Slot,
}

/// What a task came back from.
enum Ended {
    Work(Done<Pending>),
    /// With what was locked.
    Marks(Vec<marks::Waiting>),
    /// After how long.
    Query(Duration),
    Answer,
}

/// What a task carries out.
enum Running {
    Work(Ticket),
    Marks,
    Query(QueryKind, QuerySlot),
    Answer,
}

impl Dispatch {
    pub(crate) fn new(
        (bus, service): (Bus, Service),
        committer: Committer,
        publisher: Publisher,
        reads: Pool,
        settings: &Settings,
        metrics: Metrics,
    ) -> Self {
        Self {
            bus,
            service,
            committer,
            publisher,
            reads,
            queries: Queries::new(settings),
            planner: Planner::new(settings.caps()),
            marks: Marks::new(),
            lock_warned: None,
            tasks: JoinSet::new(),
            running: FxHashMap::default(),
            answering: 0,
            metrics,
        }
    }

    /// Runs until `stop`, then leaves the service and finishes what it took and what comes until it has left, within `drain`.
    pub(crate) async fn run(mut self, stop: CancellationToken, drain: Duration) {
        let mut announcements = interval(HEARTBEAT_INTERVAL);
        announcements.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next_retry = self.next_retry();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = until(next_retry) => {}
                incoming = self.service.next() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => break,
                },
                _ = announcements.tick() => {
                    if let Err(error) = self.service.announce().await {
                        debug!(error = %chain(&error), "the worker could not say that it lives");
                    }
                }
            }
            self.start();
        }
        Box::pin(self.finish(drain)).await;
    }

    /// Leaves the service, and finishes what was taken, within `drain`.
    async fn finish(mut self, drain: Duration) {
        let rest = async {
            self.leave().await;
            self.start();
            while !self.tasks.is_empty() || self.next_retry().is_some() {
                let next_retry = self.next_retry();
                tokio::select! {
                    Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                    () = until(next_retry) => {}
                }
                self.start();
            }
        };
        if tokio::time::timeout(drain, rest).await.is_err() {
            debug!("commands were left behind at the end of the drain time");
        }
    }

    /// Leaves the service without losing what gateways send meanwhile: they hear of it first, and go on being served for a moment.
    async fn leave(&mut self) {
        if let Err(error) = self.service.announce_leaving().await {
            debug!(error = %chain(&error), "the worker leaves without saying so");
        }
        self.serve_until(Instant::now() + LEAVE_DELAY).await;
        if let Err(error) = self.service.leave().await {
            debug!(error = %chain(&error), "the worker could not leave");
        }
        self.serve_until(Instant::now() + LEAVE_TIMEOUT).await;
    }

    /// Serves until then, or until nothing more can come.
    async fn serve_until(&mut self, end: Instant) {
        loop {
            self.start();
            let next_retry = self.next_retry();
            tokio::select! {
                () = sleep_until(end.into()) => return,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = until(next_retry) => {}
                incoming = self.service.next() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => return,
                },
            }
        }
    }

    fn start(&mut self) {
        while let Some(work) = self.planner.next(Instant::now()) {
            self.carry_out(work);
        }
        self.start_marks();
        self.start_queries();
        self.metrics
            .waiting(self.planner.waiting(), self.planner.postponed());
    }

    fn carry_out(&mut self, work: Work<Pending>) {
        let (committer, publisher, metrics) = (
            self.committer.clone(),
            self.publisher.clone(),
            self.metrics.clone(),
        );
        match work {
            Work::Batch(ticket, items) => {
                let running = Running::Work(ticket.clone());
                let batch = async move {
                    Ended::Work(batch(&committer, &publisher, &metrics, ticket, items).await)
                };
                self.spawn(running, batch);
            }
            Work::Alone(ticket, item) => {
                let span = span_of(&item.job.request);
                let bus = self.bus.clone();
                let running = Running::Work(ticket.clone());
                let alone = async move {
                    Ended::Work(alone(&committer, &publisher, &bus, &metrics, ticket, item).await)
                };
                self.spawn(running, alone.instrument(span));
            }
            Work::Expired(items) => {
                let mut parts = Parts::default();
                for Waiting { job, open, .. } in items {
                    self.answer(job, Err(open.when_late()), &mut parts);
                }
                self.send(parts);
            }
        }
    }

    fn spawn(&mut self, running: Running, carry_out: impl Future<Output = Ended> + Send + 'static) {
        let task = self.tasks.spawn(carry_out);
        self.running.insert(task.id(), running);
    }

    /// When something that was locked is to be tried again.
    fn next_retry(&self) -> Option<Instant> {
        let (commands, marks) = (self.planner.next_retry(), self.marks.next_retry());
        commands.into_iter().chain(marks).min()
    }

    fn ended(&mut self, ended: Result<(task::Id, Ended), JoinError>) {
        let now = Instant::now();
        match ended {
            Ok((task, ended)) => {
                let running = self.running.remove(&task);
                match ended {
                    Ended::Work(done) => self.planner.finish(done, now),
                    Ended::Marks(skipped) => {
                        self.marks.finish();
                        for waiting in skipped {
                            self.marks.postpone(waiting, now);
                        }
                    }
                    Ended::Query(took) => {
                        if let Some(Running::Query(kind, slot)) = running {
                            self.queries.finish(kind, slot, took);
                        }
                    }
                    Ended::Answer => self.answering -= 1,
                }
            }
            Err(error) => {
                error!(error = %chain(&error), "a task died");
                match self.running.remove(&error.id()) {
                    // Its commands are lost with it; their gateways try again.
                    Some(Running::Work(ticket)) => {
                        let done = Done {
                            ticket,
                            took: Duration::ZERO,
                            skipped: Vec::new(),
                            refused: Vec::new(),
                        };
                        self.planner.finish(done, now);
                    }
                    Some(Running::Marks) => self.marks.finish(),
                    Some(Running::Query(kind, slot)) => {
                        self.queries.finish(kind, slot, Duration::ZERO);
                    }
                    Some(Running::Answer) => self.answering -= 1,
                    None => {}
                }
            }
        }
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Command(incoming) => self.take_commands(incoming),
            Incoming::Query(incoming) => self.take_query(incoming),
            Incoming::Malformed => self.metrics.malformed(),
        }
    }

    /// Takes a gateway's commands, each for itself; but behind one that is refused no other of its user and conversation is taken, so that
    /// what one connection sent keeps its order. Read marks have none, and a lane of their own.
    fn take_commands(&mut self, incoming: CommandIncoming) {
        let CommandIncoming {
            batch:
                Batch {
                    budget_ms,
                    requests,
                    ..
                },
            reply,
            sent,
            received,
        } = incoming;
        let deadline = sent + Duration::from_millis(budget_ms.into());
        let left = deadline.saturating_duration_since(received);
        let is_late = left.is_zero();
        if is_late {
            self.metrics.late(requests.len());
        }
        let mut parts = Parts::default();
        let mut refused = FxHashSet::default();
        let places = Slot::each(requests.len(), reply, &self.metrics);
        for (slot, request) in places.zip(requests) {
            let job = Pending {
                request: Box::new(request),
                received,
                slot,
            };
            if is_late {
                // Its gateway has given it up, and its caller may have been refused since by another worker.
                let failure = Failure::new(Code::Unavailable, "the command came too late");
                self.answer(job, Err(failure.retry_after(1000)), &mut parts);
                continue;
            }
            if matches!(job.request.command, Command::MarkRead(_)) {
                self.take_mark(deadline, job, &mut parts);
                continue;
            }
            let item = waiting(job, deadline);
            let order = (item.owner.clone(), item.conversation);
            let admitted = if refused.contains(&order) {
                Err(MIN_RETRY_AFTER)
            } else {
                self.planner.admit(&item, left)
            };
            match admitted {
                Ok(()) => self.planner.push(item),
                Err(wait) => {
                    if item.conversation.is_some() {
                        refused.insert(order);
                    }
                    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let failure = Failure::of(Code::Overloaded).retry_after(wait);
                    self.answer(item.job, Err(failure), &mut parts);
                }
            }
        }
        self.send(parts);
    }

    fn answer(&self, job: Pending, outcome: CommandOutcome, parts: &mut Parts) {
        let command = &job.request.command;
        self.metrics.command(
            command.name(),
            code(&outcome),
            job.received.elapsed(),
            command.weight(),
        );
        parts.add(job.slot, outcome);
    }

    fn send(&mut self, parts: Parts) {
        if parts.is_empty() {
            return;
        }
        self.answering += 1;
        let send = async move {
            parts.send().await;
            Ended::Answer
        };
        self.spawn(Running::Answer, send);
    }
}

/// Waits until a time, for ever where there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn waiting(job: Pending, deadline: Instant) -> Waiting<Pending> {
    let request = &job.request;
    let kind = match &request.command {
        Command::SendMessage(send) => Kind::Send(request.caller.user.clone(), send.client_id),
        Command::CreateConversation(_)
        | Command::UpdateConversation(_)
        | Command::DeleteConversation(_)
        | Command::AddParticipants(_)
        | Command::UpdateParticipant(_)
        | Command::RemoveParticipant(_)
        | Command::EditMessage(_)
        | Command::DeleteMessage(_) => Kind::Alone,
        Command::MarkRead(_) | Command::Revoke(_) => Kind::Alone,
    };
    Waiting {
        owner: Owner::from(&request.caller),
        conversation: request.command.conversation(),
        kind,
        bytes: request.command.weight(),
        deadline,
        open: Open::default(),
        job,
    }
}

#[cfg(test)]
mod tests;
