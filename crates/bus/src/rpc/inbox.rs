//! The answers to a gateway's batches: one subscription for all, in which each batch is told by a token in its reply subject.

use async_nats::{PublishErrorKind, StatusCode, Subscriber};
use confab_protocol::command::{Batch, COMMAND_VERSION, Part, Request};
use confab_protocol::wire;
use futures_util::StreamExt as _;

use super::Target;
use crate::connection::Bus;
use crate::error::{BusError, RpcError};
use crate::subjects;

/// The header of a worker's refusal to read a request (NATS ADR-32).
const SERVICE_ERROR: &str = "Nats-Service-Error";

/// A batch among those that an inbox hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The subscription to the answers of batches, which the library renews after each reconnect.
#[derive(Debug)]
pub struct Inbox {
    sender: BatchSender,
    messages: Subscriber,
}

/// Sends batches that are answered to an [`Inbox`]. Clones share it.
#[derive(Debug, Clone)]
pub struct BatchSender {
    bus: Bus,
    subject: String,
}

impl Inbox {
    /// Opens an inbox of a name of its own. NATS may be away: then it is open from the next connect on.
    ///
    /// # Errors
    /// When the connection was closed.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        let subject = bus.client.new_inbox();
        let subscribe = bus.client.subscribe(format!("{subject}.*"));
        let messages = subscribe.await.map_err(BusError::nats("open an inbox"))?;
        let bus = bus.clone();
        Ok(Self {
            sender: BatchSender { bus, subject },
            messages,
        })
    }

    /// Returns what sends batches that are answered here.
    #[must_use]
    pub fn sender(&self) -> BatchSender {
        self.sender.clone()
    }

    /// The next part of an answer, or why there is none; of a batch that is waited for no longer too. None when the connection was
    /// closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Token, Result<Part, RpcError>)> {
        loop {
            let message = self.messages.next().await?;
            let token = message.subject.rsplit('.').next();
            let Some(Ok(token)) = token.map(str::parse) else {
                continue;
            };
            let refusal = message.headers.as_ref().and_then(|headers| {
                let status = headers.get(SERVICE_ERROR)?;
                Some(status.as_str().to_owned())
            });
            let part = if message.status == Some(StatusCode::NO_RESPONDERS) {
                Err(RpcError::NoResponders)
            } else if let Some(refusal) = refusal {
                Err(RpcError::Refused(refusal))
            } else {
                decode(&message.payload)
            };
            return Some((Token(token), part));
        }
    }
}

impl BatchSender {
    /// Sends a batch. It may wait for as long as the connection takes nothing: the caller sets the deadline.
    ///
    /// # Errors
    /// [`RpcError`] says whether a worker may have the batch.
    pub async fn send(
        &self,
        token: Token,
        target: Target,
        batch: &Batch<&Request>,
    ) -> Result<(), RpcError> {
        if !self.bus.is_connected() {
            return Err(RpcError::Disconnected);
        }
        let payload = wire::encode(batch)?;
        let subject = match target {
            Target::Worker(worker) => subjects::command_of(worker),
            Target::Any => subjects::COMMAND_SUBJECT.to_owned(),
        };
        let reply = format!("{}.{}", self.subject, token.0);
        let client = &self.bus.client;
        let sent = client.publish_with_reply(subject, reply, payload.into());
        sent.await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => RpcError::TooLarge,
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => {
                RpcError::Failed(error.into())
            }
        })
    }
}

fn decode(payload: &[u8]) -> Result<Part, RpcError> {
    let part: Part = wire::decode(payload)?;
    if part.version != COMMAND_VERSION {
        let other = format!("version {} is not version {COMMAND_VERSION}", part.version);
        return Err(RpcError::Failed(other.into()));
    }
    Ok(part)
}

#[cfg(test)]
mod tests;
