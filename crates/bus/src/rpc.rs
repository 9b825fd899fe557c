//! Requests of gateways to workers.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use confab_protocol::command::{Batch, Outcome, Request as CommandRequest};
use confab_protocol::error::Failure;
use confab_protocol::query::{QueryOutcome, QueryRequest};
use confab_protocol::wire;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connection::Bus;
use crate::error::RpcError;
use crate::subjects;

mod inbox;
mod service;
mod workers;

pub use inbox::{BatchSender, Inbox, Token};
pub use service::{CommandIncoming, Incoming, QueryIncoming, Reply, Service};
pub use workers::{HEARTBEAT_INTERVAL, Liveness, Workers};

/// A worker process, made anew at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// Which worker a request goes to: a hint, never a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// This one, on its own subject.
    Worker(WorkerId),
    /// Any one of the queue group.
    Any,
}

impl Bus {
    /// Sends a batch of commands and waits for all its outcomes, which come in the commands' order. A gateway has an [`Inbox`] instead.
    ///
    /// # Errors
    /// [`RpcError`] says whether a worker may have the batch.
    pub async fn command(
        &self,
        target: Target,
        batch: &Batch<&CommandRequest>,
        timeout: Duration,
    ) -> Result<Vec<Result<Outcome, Failure>>, RpcError> {
        let all = async {
            let open = Inbox::open(self).await;
            let mut inbox = open.map_err(|error| RpcError::Failed(error.into()))?;
            inbox.sender().send(Token(0), target, batch).await?;
            let mut outcomes = vec![None; batch.requests.len()];
            while outcomes.iter().any(Option::is_none) {
                let Some((_, part)) = inbox.next().await else {
                    return Err(RpcError::Timeout);
                };
                for (place, outcome) in part?.outcomes {
                    let slot = usize::try_from(place)
                        .ok()
                        .and_then(|at| outcomes.get_mut(at));
                    if let Some(slot) = slot {
                        slot.get_or_insert(outcome);
                    }
                }
            }
            Ok(outcomes.into_iter().flatten().collect())
        };
        let answered = tokio::time::timeout(timeout, all).await;
        answered.unwrap_or(Err(RpcError::Timeout))
    }

    /// Sends a query to one worker, or to any, and waits for its answer.
    ///
    /// # Errors
    /// [`RpcError`]; a query changes nothing and may always be sent again.
    pub async fn query(
        &self,
        target: Target,
        request: &QueryRequest,
        timeout: Duration,
    ) -> Result<QueryOutcome, RpcError> {
        let payload = wire::encode(request)?;
        let subject = match target {
            Target::Worker(worker) => subjects::query_of(worker),
            Target::Any => subjects::QUERY_SUBJECT.to_owned(),
        };
        Ok(wire::decode(&self.ask(subject, payload, timeout).await?)?)
    }

    async fn ask(
        &self,
        subject: String,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, RpcError> {
        if !self.is_connected() {
            return Err(RpcError::Disconnected);
        }
        let request = Request::new()
            .payload(payload.into())
            .timeout(Some(timeout));
        // The library counts the time from when it has the request. A connection that takes nothing may never have it.
        let asked = tokio::time::timeout(timeout, self.client.send_request(subject, request));
        match asked.await {
            Err(_late) => Err(RpcError::Timeout),
            Ok(Ok(message)) => Ok(message.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => RpcError::Timeout,
                RequestErrorKind::NoResponders => RpcError::NoResponders,
                RequestErrorKind::MaxPayloadExceeded => RpcError::TooLarge,
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                    RpcError::Failed(error.into())
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use confab_protocol::query::Query;
    use tokio::task::JoinSet;

    use super::*;
    use crate::sessions::SessionsOf;
    use crate::testing::{NatsServer, TEST_TIMEOUT};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn request_times_out_on_stalled_connection() {
        let mut server = NatsServer::start().await;
        let bus = server.connect().await;
        server.nats.process().unwrap().pause().unwrap();
        // More than the library and the system take for a server that reads nothing.
        let mut flood = JoinSet::new();
        let payload = Bytes::from(vec![0; 64 * 1024]);
        for _ in 0..4000 {
            let (client, payload) = (bus.client.clone(), payload.clone());
            flood.spawn(async move { client.publish("flood", payload).await });
        }
        let one_more = async || {
            let publish = bus.client.publish("flood", payload.clone());
            tokio::time::timeout(Duration::from_millis(200), publish).await
        };
        let is_full = async { while one_more().await.is_ok() {} };
        tokio::time::timeout(TEST_TIMEOUT, is_full).await.unwrap();
        let request = QueryRequest {
            version: 1,
            budget_ms: 100,
            request_id: String::new(),
            traceparent: None,
            query: Query::Revocations {
                after: 0,
                lifetimes: None,
            },
        };
        assert!(bus.is_connected(), "it is not noticed yet");
        let began = Instant::now();
        let asked = bus
            .query(Target::Any, &request, Duration::from_millis(100))
            .await;
        assert!(matches!(asked, Err(RpcError::Timeout)), "{asked:?}");
        assert!(began.elapsed() < Duration::from_secs(1));

        let of = SessionsOf::new("t".parse().unwrap(), "u".parse().unwrap());
        assert!(bus.sessions_of(&of, &[]).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(3));
        server.nats.process().unwrap().resume().unwrap();
    }
}
