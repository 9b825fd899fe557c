//! Read marks on their way to a worker, for HTTP and WebSocket: merged where they wait, and told as receipts.

use confab_protocol::chain::chain;
use confab_protocol::command::{Caller, Outcome, ReadMark, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::signal::{Signal, SignalKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cluster::signals::Outbound;
use crate::workers::{CommandOutcome, WorkerClient};

mod merging;

use merging::{MarkMerger, MarkWrite, PendingMark};

/// Requests between their callers and the loop.
const QUEUE_CAPACITY: usize = 1024;

type Waiter = oneshot::Sender<CommandOutcome>;

/// The handle. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ReadMarks {
    inbox: mpsc::Sender<(Request, Waiter)>,
}

impl ReadMarks {
    /// The handle, and the loop behind it.
    pub(crate) fn new(commands: WorkerClient, signals: Outbound) -> (Self, ReadMarksLoop) {
        let (inbox, requests) = mpsc::channel(QUEUE_CAPACITY);
        let state = ReadMarksLoop {
            requests,
            merging: MarkMerger::default(),
            writes: JoinSet::new(),
            commands,
            signals,
        };
        (Self { inbox }, state)
    }

    /// Carries out a `MarkRead`, as [`WorkerClient::execute`] would. Of those up to a seq, what waits for the same user and
    /// conversation is one write; everyone who waits hears its answer. What moved is told as a receipt.
    pub(crate) async fn execute(&self, request: Request) -> CommandOutcome {
        let (waiter, outcome) = oneshot::channel();
        let stopping = || Failure::new(Code::Unavailable, "the gateway is stopping");
        let sent = self.inbox.send((request, waiter)).await;
        sent.map_err(|_closed| stopping())?;
        // The write behind it has a deadline of its own.
        outcome.await.unwrap_or_else(|_stopped| Err(stopping()))
    }
}

/// A write that was answered, and whom its outcome is for.
struct Written {
    mark: Option<PendingMark>,
    caller: Caller,
    outcome: CommandOutcome,
    waiters: Vec<Waiter>,
}

/// Gathers the read marks that callers submit, and writes each user's one by one.
pub(crate) struct ReadMarksLoop {
    requests: mpsc::Receiver<(Request, Waiter)>,
    merging: MarkMerger<Waiter>,
    writes: JoinSet<Written>,
    commands: WorkerClient,
    signals: Outbound,
}

impl ReadMarksLoop {
    /// Runs until `stop`; what is on its way then is answered first.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                Some(written) = self.writes.join_next() => self.written(written),
                Some((request, waiter)) = self.requests.recv() => self.take(request, waiter),
                () = stop.cancelled() => break,
            }
        }
        while let Some(written) = self.writes.join_next().await {
            self.written(written);
        }
    }

    fn take(&mut self, request: Request, waiter: Waiter) {
        let Some((mark, seq)) = PendingMark::of(&request) else {
            let waiters = vec![waiter];
            self.write(None, MarkWrite { request, waiters });
            return;
        };
        if !self.merging.has_room(&mark) {
            let full = Failure::new(Code::Overloaded, "too many read marks wait in this gateway");
            drop(waiter.send(Err(full.retry_after(1000))));
            return;
        }
        if let Some(write) = self.merging.submit(mark.clone(), seq, request, waiter) {
            self.write(Some(mark), write);
        }
    }

    fn write(&mut self, mark: Option<PendingMark>, write: MarkWrite<Waiter>) {
        let commands = self.commands.clone();
        self.writes.spawn(async move {
            let MarkWrite { request, waiters } = write;
            let caller = request.caller.clone();
            let outcome = commands.execute(request).await;
            Written {
                mark,
                caller,
                outcome,
                waiters,
            }
        });
    }

    fn written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        let Written {
            mark,
            caller,
            outcome,
            waiters,
        } = match written {
            Ok(written) => written,
            Err(error) => {
                warn!(error = %chain(&error), "a write of a read mark died");
                return;
            }
        };
        if let Ok(Outcome::Read(marks)) = &outcome {
            for mark in marks {
                self.tell(&caller, *mark);
            }
        }
        for waiter in waiters {
            // A caller that left needs no answer.
            drop(waiter.send(outcome.clone()));
        }
        if let Some(mark) = mark
            && let Some(next) = self.merging.answered(&mark)
        {
            self.write(Some(mark), next);
        }
    }

    fn tell(&self, caller: &Caller, mark: ReadMark) {
        // In a large conversation the hub tells the reader's own sessions alone.
        if mark.moved {
            self.signals.signal(Signal {
                tenant: caller.tenant.clone(),
                conversation: mark.conversation,
                user: caller.user.clone(),
                kind: SignalKind::Receipt(mark.up_to),
                gateway: None,
            });
        }
    }
}
