//! The workers' side: a NATS micro service (NATS ADR-32), so that `nats micro ls|info|stats|ping` see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::connection::State;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{Request, ServiceExt as _};
use bytes::Bytes;
use confab_protocol::chain::chain;
use confab_protocol::command::{self, Batch};
use confab_protocol::condition::Monitor;
use confab_protocol::query::{self, QueryRequest};
use confab_protocol::wire;
use futures_util::StreamExt as _;
use futures_util::stream::{self, SelectAll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::WorkerId;
use super::workers::{announcement, leaving};
use crate::conditions::ANSWERS_CONDITION;
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects;

/// Time for which the subscriptions are waited for at the start.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker's place among the others.
pub struct Service {
    bus: Bus,
    id: WorkerId,
    /// Start of this worker's clock: nothing was sent to it before.
    began: Instant,
    answers: Arc<Monitor>,
    /// Answers `nats micro` until it leaves.
    service: Option<async_nats::service::Service>,
    requests: SelectAll<stream::BoxStream<'static, Raw>>,
}

enum Raw {
    Command(Request),
    Query(Request),
}

/// A request of a gateway.
#[derive(Debug)]
pub enum Incoming {
    /// Commands, to be carried out in their order for each conversation.
    Command(CommandIncoming),
    /// A query.
    Query(QueryIncoming),
    /// What no gateway of this version sends; it was answered.
    Malformed,
}

/// A batch of commands with where its outcomes go.
#[derive(Debug)]
pub struct CommandIncoming {
    /// The commands.
    pub batch: Batch,
    /// Where the outcomes go.
    pub reply: Reply,
    /// When it was sent at the earliest: the budget counts from here, so that what lay in a socket for longer is not carried out.
    pub sent: Instant,
    /// When it came.
    pub received: Instant,
}

/// A query with where its answer goes.
#[derive(Debug)]
pub struct QueryIncoming {
    /// The query.
    pub request: Box<QueryRequest>,
    /// Where the answer goes.
    pub reply: Reply,
    /// When it came: the budget counts from here.
    pub received: Instant,
}

/// The subject that an answer goes to.
pub struct Reply {
    request: Box<Request>,
    client: Client,
    worker: WorkerId,
    answers: Arc<Monitor>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let subject = &self.request.message.reply;
        f.debug_tuple("Reply").field(subject).finish()
    }
}

impl Reply {
    /// Answers; gives the answer's size in bytes.
    ///
    /// # Errors
    /// When the answer cannot be encoded, or NATS is away: then the gateway asks again.
    pub async fn send<T: Serialize + Sync>(self, answer: &T) -> Result<usize, BusError> {
        let payload = wire::encode(answer)?;
        let bytes = payload.len();
        self.send_last_part(payload.into()).await?;
        Ok(bytes)
    }

    /// The worker that answers.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Sends a part of the answer behind which others follow.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn send_part(&self, payload: Bytes) -> Result<(), BusError> {
        // Not by `respond`, which counts a request in the service's statistics each time.
        let Some(subject) = self.request.message.reply.clone() else {
            return Ok(());
        };
        let sent = self.client.publish(subject, payload);
        self.told(sent.await.map_err(BusError::nats("answer a gateway")))
    }

    /// Sends the answer, or the part of it that completes it: the service's statistics count the request here.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn send_last_part(&self, payload: Bytes) -> Result<(), BusError> {
        let sent = self.request.respond(Ok(payload));
        self.told(sent.await.map_err(BusError::nats("answer a gateway")))
    }

    /// Notes that an answer was given up because NATS did not take it in time.
    pub fn was_given_up(&self) {
        let _late: Result<(), _> = self.told(Err(BusError::Timeout));
    }

    fn told(&self, sent: Result<(), BusError>) -> Result<(), BusError> {
        match &sent {
            Ok(()) => self.answers.succeeded(),
            // While NATS is away that is told instead, once.
            Err(error) if self.client.connection_state() == State::Connected => {
                self.answers.failed(error);
            }
            Err(_) => {}
        }
        sent
    }
}

impl Service {
    /// Takes its place in the queue group and on its own subject.
    ///
    /// # Errors
    /// When NATS refuses or does not take the subscriptions in time; [`BusError::Forbidden`] where it does not permit one of them.
    pub async fn start(bus: &Bus, id: WorkerId, version: &str) -> Result<Self, BusError> {
        let starting = async {
            let began = Instant::now();
            let mut service = Self::subscribe(bus, id, version).await?;
            let (command, query) = (subjects::command_of(id), subjects::query_of(id));
            let own = [
                subjects::COMMAND_SUBJECT,
                &command,
                subjects::QUERY_SUBJECT,
                &query,
            ];
            let permitted = bus.may_subscribe(&own, began).await;
            if permitted.is_err() {
                service.leave().await?;
            }
            permitted.map(|()| service)
        };
        tokio::time::timeout(SUBSCRIBE_TIMEOUT, starting)
            .await
            .map_err(|_elapsed| BusError::Timeout)?
    }

    async fn subscribe(bus: &Bus, id: WorkerId, version: &str) -> Result<Self, BusError> {
        let began = Instant::now();
        let service = bus
            .client
            .service_builder()
            .description(
                "confab: decides commands, group-commits them to Postgres, answers queries",
            )
            .queue_group(subjects::QUEUE_GROUP)
            .metadata([("worker".to_owned(), id.to_string())].into())
            .start(subjects::SERVICE_NAME, version)
            .await
            .map_err(BusError::nats("start the worker service"))?;
        let add = async |name: &str, subject: String| -> Result<Endpoint, BusError> {
            let endpoint = service.endpoint_builder().name(name);
            endpoint
                .add(subject)
                .await
                .map_err(BusError::nats("subscribe the worker"))
        };
        let shared = add("command", subjects::COMMAND_SUBJECT.to_owned()).await?;
        let own = add("command-direct", subjects::command_of(id)).await?;
        let query = add("query", subjects::QUERY_SUBJECT.to_owned()).await?;
        let own_query = add("query-direct", subjects::query_of(id)).await?;
        let mut requests = SelectAll::new();
        requests.push(shared.map(Raw::Command).boxed());
        requests.push(own.map(Raw::Command).boxed());
        requests.push(query.map(Raw::Query).boxed());
        requests.push(own_query.map(Raw::Query).boxed());
        Ok(Self {
            bus: bus.clone(),
            id,
            began,
            answers: Arc::new(Monitor::new(ANSWERS_CONDITION)),
            service: Some(service),
            requests,
        })
    }

    /// The next thing asked; none after [`Self::leave`] and what came before. Cancel-safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        let raw = self.requests.next().await?;
        let received = Instant::now();
        let (request, problem) = match raw {
            Raw::Command(request) => {
                match decode::<Batch>(&request, command::COMMAND_VERSION, |batch| batch.version) {
                    Ok(batch) => {
                        return Some(Incoming::Command(CommandIncoming {
                            sent: self.sent(&batch, received),
                            batch,
                            reply: self.reply(request),
                            received,
                        }));
                    }
                    Err(problem) => (request, problem),
                }
            }
            Raw::Query(raw) => {
                match decode::<QueryRequest>(&raw, query::QUERY_VERSION, |query| query.version) {
                    Ok(request) => {
                        return Some(Incoming::Query(QueryIncoming {
                            request: Box::new(request),
                            reply: self.reply(raw),
                            received,
                        }));
                    }
                    Err(problem) => (raw, problem),
                }
            }
        };
        refuse(&request, problem).await;
        Some(Incoming::Malformed)
    }

    fn reply(&self, request: Request) -> Reply {
        Reply {
            request: Box::new(request),
            client: self.bus.client.clone(),
            worker: self.id,
            answers: Arc::clone(&self.answers),
        }
    }

    /// When a batch was sent at the earliest. Whoever has not heard of this worker may have sent it at any time since it began.
    fn sent(&self, batch: &Batch, received: Instant) -> Instant {
        let Some(sent) = &batch.sent else {
            return received;
        };
        let own = sent.iter().find(|sent| sent.worker == self.id.0);
        let since = Duration::from_millis(own.map_or(0, |sent| sent.ms));
        let sent = self.began.checked_add(since);
        sent.map_or(received, |sent| sent.min(received))
    }

    /// Says that this worker lives, and what its clock shows; to be called every [`HEARTBEAT_INTERVAL`](super::HEARTBEAT_INTERVAL).
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn announce(&self) -> Result<(), BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let payload = announcement(self.id, self.began.elapsed());
        self.bus
            .client
            .publish(subjects::WORKER_HEARTBEAT_SUBJECT, payload)
            .await
            .map_err(BusError::nats("announce the worker"))
    }

    /// Tells gateways that this worker leaves: from then on they pick others. It still gets what they sent before they heard it.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn announce_leaving(&self) -> Result<(), BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let client = &self.bus.client;
        let announced = client.publish(subjects::WORKER_LEAVING_SUBJECT, leaving(self.id));
        announced
            .await
            .map_err(BusError::nats("announce that the worker leaves"))
    }

    /// Leaves: nothing new is sent to it. [`Self::next`] gives what came before, and then none; all of it may still be answered.
    ///
    /// # Errors
    /// When the library refuses.
    pub async fn leave(&mut self) -> Result<(), BusError> {
        match self.service.take() {
            // It ends the subscriptions, not what they have received.
            Some(service) => service
                .stop()
                .await
                .map_err(BusError::nats("stop the worker service")),
            None => Ok(()),
        }
    }
}

async fn refuse(request: &Request, problem: String) {
    let (subject, bytes) = (&request.message.subject, request.message.payload.len());
    warn!(%subject, bytes, problem, "a malformed request was refused");
    if let Err(error) = request
        .respond(Err(ServiceError {
            code: 400,
            status: problem,
        }))
        .await
    {
        debug!(error = %chain(&error), "a malformed request could not be answered");
    }
}

fn decode<T: DeserializeOwned>(
    request: &Request,
    own: u8,
    version: impl Fn(&T) -> u8,
) -> Result<T, String> {
    let message: T = wire::decode(&request.message.payload).map_err(|error| error.to_string())?;
    match version(&message) {
        version if version == own => Ok(message),
        other => Err(format!("version {other} is not version {own}")),
    }
}
