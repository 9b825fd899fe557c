//! What gateways ask and tell each other about sessions, over core NATS: to let one go, that one was taken over, and who
//! holds a record that the bucket has lost.

use std::time::Duration;

use async_nats::{Message, Subject, Subscriber};
use confab_protocol::chain::chain;
use confab_protocol::ids::SessionId;
use confab_protocol::wire;
use futures_util::stream::{Select, select};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Entry, Ownership, TokenHash};
use crate::connection::Bus;
use crate::error::BusError;
use crate::gateways::GatewayId;
use crate::subjects;

/// The version of this wire; another is not heeded.
const WIRE_VERSION: u8 = 1;
/// Time for which a gateway that is to let a session go is waited for.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which gateways that may hold a record are waited for.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(1);
/// What is asked is shorter than this by far.
const MAX_QUERY_BYTES: usize = 1024;

/// A session was taken over: whoever holds it as a lesser owner holds it no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Which one.
    pub session: SessionId,
    /// Who owns it now.
    pub owner: Ownership,
}

/// A client came with a session's token that was used before: is it still good?
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct TakeOver {
    /// Which one.
    pub session: SessionId,
    /// The token's hash.
    pub hash: TokenHash,
}

/// A gateway's answer to a take-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It has let the session go.
    Granted,
    /// The token is worth nothing: its session's client has a newer one.
    Refused,
    /// It never heard of the session.
    Unknown,
}

/// The record of a session that other gateways hold.
#[derive(Debug)]
pub struct HeldElsewhere {
    /// The owner's entry: of several, all but one have not heard yet that they lost the session.
    pub entry: Option<Entry>,
    /// True if every one of them has answered.
    pub is_all: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Versioned<T> {
    version: u8,
    asked: T,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RecordQuery {
    session: SessionId,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordHolder {
    gateway: GatewayId,
    entry: Option<Entry>,
}

fn encode<T: Serialize>(asked: T) -> Result<Vec<u8>, BusError> {
    let version = WIRE_VERSION;
    Ok(wire::encode(&Versioned { version, asked })?)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > MAX_QUERY_BYTES {
        return None;
    }
    let read: Versioned<T> = wire::decode(bytes).ok()?;
    (read.version == WIRE_VERSION).then_some(read.asked)
}

impl Bus {
    /// Tells a gateway that a session was taken over. It may not hear it: then it finds out when it writes the record.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn fence(&self, gateway: GatewayId, fence: Fence) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(subjects::fence(gateway), encode(fence)?.into())
            .await
            .map_err(BusError::nats("tell of a take-over"))
    }

    /// Asks a gateway to let a session go; none when it does not answer within a second.
    pub async fn take_over(&self, gateway: GatewayId, take_over: TakeOver) -> Option<Answer> {
        let asking = async {
            if !self.is_connected() {
                return Err(BusError::Disconnected);
            }
            let query = encode(take_over)?.into();
            let answer = self.client.request(subjects::take_over(gateway), query);
            let answer = answer.await.map_err(BusError::nats("ask for a session"))?;
            Ok(wire::decode(&answer.payload)?)
        };
        match tokio::time::timeout(RELEASE_TIMEOUT, asking).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                debug!(error = %chain(&error), gateway = %gateway, "a gateway does not say whether it lets a session go");
                None
            }
            Err(_late) => None,
        }
    }

    /// Returns what `others`, the gateways that live, hold of a session. They are waited for a second at most.
    ///
    /// # Errors
    /// When NATS is away or fails.
    pub async fn held_record(
        &self,
        session: SessionId,
        others: &[GatewayId],
    ) -> Result<HeldElsewhere, BusError> {
        let mut held = HeldElsewhere {
            entry: None,
            is_all: others.is_empty(),
        };
        if held.is_all {
            return Ok(held);
        }
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let query = encode(RecordQuery { session })?;
        let asking = async {
            let inbox = self.client.new_inbox();
            let mut answers = self
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(BusError::nats("listen for a record"))?;
            self.client
                .publish_with_reply(subjects::RECORD_QUERY_SUBJECT, inbox, query.into())
                .await
                .map_err(BusError::nats("ask for a record"))?;
            hear_held(&mut answers, others.to_vec(), &mut held).await;
            Ok(())
        };
        match tokio::time::timeout(HOLDER_TIMEOUT, asking).await {
            Ok(asked) => asked.map(|()| held),
            Err(_late) => Ok(held),
        }
    }

    /// A gateway's place among those that are told and asked.
    ///
    /// # Errors
    /// When NATS refuses a subscription.
    pub async fn record_queries(&self, gateway: GatewayId) -> Result<RecordQueries, BusError> {
        let listen = async |subject: String| {
            let subscription = self.client.subscribe(subject).await;
            subscription.map_err(BusError::nats("listen for questions about records"))
        };
        let own = select(
            listen(subjects::fence(gateway)).await?,
            listen(subjects::take_over(gateway)).await?,
        );
        Ok(RecordQueries {
            bus: self.clone(),
            gateway,
            messages: select(
                own,
                listen(subjects::RECORD_QUERY_SUBJECT.to_owned()).await?,
            ),
        })
    }
}

/// Hears what is held until all of `missing` have answered.
async fn hear_held(
    answers: &mut (impl Stream<Item = Message> + Unpin),
    mut missing: Vec<GatewayId>,
    held: &mut HeldElsewhere,
) {
    while !missing.is_empty()
        && let Some(message) = answers.next().await
    {
        // What is no answer of ours is left out: the others are waited for.
        let Ok(RecordHolder { gateway, entry }) = wire::decode::<RecordHolder>(&message.payload)
        else {
            continue;
        };
        if entry.as_ref().map(Entry::standing) > held.entry.as_ref().map(Entry::standing) {
            held.entry = entry;
        }
        missing.retain(|one| *one != gateway);
    }
    held.is_all = missing.is_empty();
}

/// A subscriber to the messages and queries about records for one gateway.
#[derive(Debug)]
pub struct RecordQueries {
    bus: Bus,
    gateway: GatewayId,
    messages: Select<Select<Subscriber, Subscriber>, Subscriber>,
}

/// One thing a gateway is told or asked.
#[derive(Debug)]
pub enum RecordRequest {
    /// A session was taken over.
    Fence(Fence),
    /// Whether a session is let go.
    TakeOver(TakeOver, RecordReply),
    /// What is held of a session.
    Record(SessionId, RecordReply),
    /// Something that is no question of this version.
    Malformed,
}

/// The subject that an answer goes to.
#[derive(Debug)]
pub struct RecordReply(Subject);

impl RecordQueries {
    /// The next one; none when the connection was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<RecordRequest> {
        let message = self.messages.next().await?;
        Some(self.read(message).unwrap_or(RecordRequest::Malformed))
    }

    fn read(&self, message: Message) -> Option<RecordRequest> {
        let subject = message.subject.as_str();
        if subject == subjects::RECORD_QUERY_SUBJECT {
            let wanted: RecordQuery = decode(&message.payload)?;
            return Some(RecordRequest::Record(
                wanted.session,
                RecordReply(message.reply?),
            ));
        }
        if subject == subjects::fence(self.gateway) {
            return decode(&message.payload).map(RecordRequest::Fence);
        }
        let take_over = decode(&message.payload)?;
        Some(RecordRequest::TakeOver(
            take_over,
            RecordReply(message.reply?),
        ))
    }

    /// Answers whether a session is let go.
    ///
    /// # Errors
    /// When NATS is away: who asked takes silence for a yes.
    pub async fn answer(&self, reply: RecordReply, answer: Answer) -> Result<(), BusError> {
        self.publish(reply, wire::encode(&answer)?).await
    }

    /// Answers what is held of a session.
    ///
    /// # Errors
    /// When NATS is away: who asked does without.
    pub async fn tell(&self, reply: RecordReply, entry: Option<Entry>) -> Result<(), BusError> {
        let gateway = self.gateway;
        self.publish(reply, wire::encode(&RecordHolder { gateway, entry })?)
            .await
    }

    async fn publish(&self, reply: RecordReply, answer: Vec<u8>) -> Result<(), BusError> {
        self.bus
            .client
            .publish(reply.0, answer.into())
            .await
            .map_err(BusError::nats("answer about a record"))
    }
}

#[cfg(test)]
mod tests;
