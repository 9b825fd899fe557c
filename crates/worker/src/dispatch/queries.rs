//! Queries: taken in, answered in turn, those for sessions apart from those for pages.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use confab_bus::rpc::{QueryIncoming, Reply};
use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::query::{QueryKind, QueryOutcome, QueryRequest};
use futures_util::FutureExt as _;
use tracing::{Instrument as _, debug, error};

use super::{Dispatch, Ended, Running, code};
use crate::metrics::Metrics;
use crate::origin;
use crate::query_queue::{Next, QueryQueue, Slot};
use crate::reads;
use crate::settings::Settings;

/// After how long a refused query is worth another try, in milliseconds.
const RETRY_DELAY_MS: u64 = 500;

/// Queries by their kind, each with slots of its own.
#[derive(Debug)]
pub(super) struct Queries {
    pages: QueryQueue<PendingQuery>,
    sessions: QueryQueue<PendingQuery>,
}

/// A query with where its answer goes.
#[derive(Debug)]
pub(super) struct PendingQuery {
    request: Box<QueryRequest>,
    reply: Reply,
}

impl Queries {
    pub(super) fn new(settings: &Settings) -> Self {
        let queue = |kind| QueryQueue::new(kind, settings.query_slots(kind));
        Self {
            pages: queue(QueryKind::Page),
            sessions: queue(QueryKind::Session),
        }
    }

    /// Gives a slot back after so long.
    pub(super) fn finish(&mut self, kind: QueryKind, slot: Slot, took: Duration) {
        self.of(kind).finish(slot, took);
    }

    pub(super) const fn of(&mut self, kind: QueryKind) -> &mut QueryQueue<PendingQuery> {
        match kind {
            QueryKind::Page => &mut self.pages,
            QueryKind::Session => &mut self.sessions,
        }
    }
}

impl Dispatch {
    /// Takes a query in, or refuses it.
    pub(super) fn take_query(&mut self, incoming: QueryIncoming) {
        let QueryIncoming {
            request,
            reply,
            received,
        } = incoming;
        let deadline = received + Duration::from_millis(request.budget_ms.into());
        let (kind, share) = (request.query.kind(), request.query.share());
        let pending = PendingQuery { request, reply };
        if let Err(pending) = self.queries.of(kind).push(share, deadline, pending) {
            let failure = Failure::of(Code::Overloaded).retry_after(RETRY_DELAY_MS);
            self.refuse(pending, failure);
        }
    }

    /// Begins whatever has a slot.
    pub(super) fn start_queries(&mut self) {
        for kind in QueryKind::ALL {
            while let Some(next) = self.queries.of(kind).next(Instant::now()) {
                match next {
                    Next::Run(slot, pending, left) => self.read(kind, slot, pending, left),
                    Next::Expired(pending) => self.refuse(pending, Failure::of(Code::Timeout)),
                }
            }
            let queue = self.queries.of(kind);
            let (waiting, running) = (queue.waiting(), queue.running());
            self.metrics.query_slots(kind, waiting, running);
        }
    }

    fn read(&mut self, kind: QueryKind, slot: Slot, pending: PendingQuery, left: Duration) {
        let (pool, metrics) = (self.reads.clone(), self.metrics.clone());
        let PendingQuery { request, reply } = pending;
        let name = request.query.name();
        let traceparent = request.traceparent.as_deref();
        let span = origin::span(&request.request_id, traceparent, name);
        let answer = async move {
            let began = Instant::now();
            let reading = AssertUnwindSafe(reads::answer(&pool, &request.query, left));
            let outcome = reading.catch_unwind().await.unwrap_or_else(|_panic| {
                error!("a query panicked");
                Err(Failure::of(Code::Internal))
            });
            let took = began.elapsed();
            metrics.query_read(name, took);
            send(&metrics, name, reply, &outcome).await;
            Ended::Query(took)
        };
        self.spawn(Running::Query(kind, slot), answer.instrument(span));
    }

    fn refuse(&mut self, pending: PendingQuery, failure: Failure) {
        let metrics = self.metrics.clone();
        self.answering += 1;
        let refuse = async move {
            let PendingQuery { request, reply } = pending;
            send(&metrics, request.query.name(), reply, &Err(failure)).await;
            Ended::Answer
        };
        self.spawn(Running::Answer, refuse);
    }
}

async fn send(metrics: &Metrics, name: &'static str, reply: Reply, outcome: &QueryOutcome) {
    metrics.query(name, code(outcome));
    match reply.send(outcome).await {
        Ok(bytes) => metrics.query_answer(name, bytes),
        Err(error) => {
            metrics.unsent();
            debug!(error = %chain(&error), query = name, "a query could not be answered");
        }
    }
}
