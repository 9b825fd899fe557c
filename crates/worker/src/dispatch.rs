//! Takes what gateways ask, plans it, has it committed or read, and answers.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_bus::rpc::{CommandIncoming, Incoming, Service};
use confab_protocol::command::{Batch, Command, Request};
use confab_protocol::error::{Code, Failure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, error};

mod answering;
mod marks;
mod queries;
mod work;

use answering::{Parts, Slot};
use queries::{Answered, Queries};
use work::{alone, batch, code};

use crate::commit::{CommandOutcome, Committer};
use crate::database::Pool;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::outbox::Publisher;
use crate::planner::{Done, Item as Waiting, Kind, Planner, Work};
use crate::settings::Settings;

/// How often a worker says that it lives.
const ANNOUNCE: Duration = Duration::from_secs(1);

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
    tasks: JoinSet<Ended>,
    answering: usize,
    metrics: Metrics,
}

/// A command, when it came, and where its outcome goes.
#[derive(Debug)]
struct Pending {
    request: Request,
    received: Instant,
    slot: Slot,
}

/// What a task came back from.
enum Ended {
    Work(Done),
    Marks,
    Query(Answered),
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
        self.start_queries();
        self.metrics.waiting(self.planner.waiting());
    }

    fn carry_out(&mut self, work: Work<Pending>) {
        let (committer, publisher, metrics) = (
            self.committer.clone(),
            self.publisher.clone(),
            self.metrics.clone(),
        );
        match work {
            Work::Batch(items) => {
                self.tasks.spawn(async move {
                    Ended::Work(batch(&committer, &publisher, &metrics, items).await)
                });
            }
            Work::Alone(item) => {
                let span = debug_span!("command", request.id = %item.job.request.request_id);
                let bus = self.bus.clone();
                let alone = async move {
                    Ended::Work(alone(&committer, &publisher, &bus, &metrics, item).await)
                };
                self.tasks.spawn(alone.instrument(span));
            }
            Work::Expired(items) => {
                let mut parts = Parts::default();
                for Waiting { job, .. } in items {
                    self.answer(job, Err(Failure::of(Code::Timeout)), &mut parts);
                }
                self.send(parts);
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended::Work(done)) => self.planner.finish(done),
            Ok(Ended::Marks) => self.marks.finish(),
            Ok(Ended::Query(answered)) => self.queries.finish(answered),
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
            sent,
            received,
        } = incoming;
        let deadline = sent + Duration::from_millis(budget_ms.into());
        let places = Slot::each(requests.len(), reply, &self.metrics);
        let mut parts = Parts::default();
        let (count, bytes) = requests
            .iter()
            .filter(|request| !matches!(request.command, Command::MarkRead(_)))
            .fold((0, 0), |(count, bytes), request| {
                (count + 1, bytes + request.command.weight())
            });
        let is_late = deadline <= received;
        if is_late {
            self.metrics.late(requests.len());
        }
        let left = deadline.saturating_duration_since(received);
        let admitted = self.planner.admit(count, bytes, left);
        for (slot, request) in places.zip(requests) {
            let job = Pending {
                request,
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
            match admitted {
                Ok(()) => self.planner.push(waiting(job, deadline)),
                Err(wait) => {
                    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let refused = Err(Failure::of(Code::Overloaded).retry_after(wait));
                    self.answer(job, refused, &mut parts);
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
        self.tasks.spawn(async move {
            parts.send().await;
            Ended::Answer
        });
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
        conversation: request.command.conversation(),
        kind,
        bytes: request.command.weight(),
        deadline,
        job,
    }
}
