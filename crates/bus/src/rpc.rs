//! Requests of gateways to workers.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use bytes::Bytes;
use confab_protocol::command::{Batch, Outcomes};
use confab_protocol::query::{QueryOutcome, QueryRequest};
use confab_protocol::wire;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connection::Bus;
use crate::error::RpcError;
use crate::subjects;

mod service;
mod workers;

pub use service::{CommandIncoming, Incoming, QueryIncoming, Reply, Service};
pub use workers::Workers;

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
    /// Sends a batch of commands and waits for its outcomes.
    ///
    /// # Errors
    /// [`RpcError`] says whether a worker may have the batch.
    pub async fn command(
        &self,
        target: Target,
        batch: &Batch,
        timeout: Duration,
    ) -> Result<Outcomes, RpcError> {
        let payload = wire::encode(batch)?;
        let subject = match target {
            Target::Worker(worker) => subjects::command_of(worker),
            Target::Any => subjects::COMMAND.to_owned(),
        };
        Ok(wire::decode(&self.ask(subject, payload, timeout).await?)?)
    }

    /// Sends a query to any worker and waits for its answer.
    ///
    /// # Errors
    /// [`RpcError`]; a query changes nothing and may always be sent again.
    pub async fn query(
        &self,
        request: &QueryRequest,
        timeout: Duration,
    ) -> Result<QueryOutcome, RpcError> {
        let payload = wire::encode(request)?;
        Ok(wire::decode(
            &self
                .ask(subjects::QUERY.to_owned(), payload, timeout)
                .await?,
        )?)
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
        match self.client.send_request(subject, request).await {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
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
