//! NATS: requests and their answers, as large as those of a send, and nothing done with them.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use confab_protocol::command::{self, Batch, COMMAND_VERSION, Command, Outcome, Request, Sent};
use confab_protocol::timestamp::Timestamp;
use confab_protocol::wire;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::postgres::one;
use super::sender::{MeasuredServer, PartMeasurement, Window, isolated, measure};
use crate::Error;
use crate::load::Latencies;
use crate::stack::Servers;

const REQUEST_SUBJECT: &str = "confab.bench.request";
const QUEUE_GROUP: &str = "workers";

/// What requests cost, by side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requests {
    /// Of the one that asks, and the server.
    #[serde(flatten)]
    pub(crate) requester: PartMeasurement,
    /// Processors' time of the one that answers for each, in microseconds.
    pub(crate) responder_micros: f64,
}

impl Requests {
    /// Processors' time of all for one request and its answer, in microseconds.
    pub(crate) fn micros(&self) -> f64 {
        self.requester.server_micros + self.requester.client_micros + self.responder_micros
    }
}

/// Asks with so many requests on the way, one client of another.
pub(crate) async fn requests(
    servers: &mut Servers,
    in_flight: usize,
    length: Duration,
) -> Result<Requests, Error> {
    let server = MeasuredServer::Nats(servers.nats.process()?.id());
    let (url, other_url) = (servers.nats.url(), servers.nats.url());
    let (ready, is_ready) = oneshot::channel();
    let window = Window::of_senders(2, length);
    let answer_window = window.clone();
    let answer = Bytes::from(answer()?);
    let responder = isolated(move || async move {
        let client = connect(&url).await?;
        let (taken, work) = (Latencies::default(), answer_all(&client, answer, ready));
        let counted = async { work(&taken).await };
        measure(counted, &taken, 1.0, server, answer_window).await
    });
    let requester = isolated(move || async move {
        is_ready
            .await
            .map_err(Error::nats("wait for who answers"))?;
        let client = connect(&other_url).await?;
        let (taken, request) = (Latencies::default(), Bytes::from(request()?));
        let asking = (0..in_flight).map(|_| ask(&client, &request, &taken));
        let work = async { try_join_all(asking).await.map(drop) };
        measure(work, &taken, 1.0, server, window).await
    });
    let (responder, requester) = tokio::try_join!(responder, requester)?;
    Ok(Requests {
        requester,
        responder_micros: responder.client_micros,
    })
}

/// Connects with room for what is published without a pause.
pub(super) async fn connect(url: &str) -> Result<Client, Error> {
    let options = ConnectOptions::new().subscription_capacity(64 * 1024);
    options.connect(url).await.map_err(Error::nats("connect"))
}

async fn ask(client: &Client, request: &Bytes, taken: &Latencies) -> Result<(), Error> {
    loop {
        let began = Instant::now();
        let asked = client.request(REQUEST_SUBJECT, request.clone()).await;
        asked.map_err(Error::nats("ask"))?;
        taken.record(began.elapsed());
    }
}

/// Answers whatever is asked.
fn answer_all(
    client: &Client,
    answer: Bytes,
    ready: oneshot::Sender<()>,
) -> impl AsyncFnOnce(&Latencies) -> Result<(), Error> {
    async move |taken| {
        let subscribed = client
            .queue_subscribe(REQUEST_SUBJECT, QUEUE_GROUP.to_owned())
            .await;
        let mut requests = subscribed.map_err(Error::nats("subscribe"))?;
        client.flush().await.map_err(Error::nats("subscribe"))?;
        if ready.send(()).is_err() {
            return Err(Error::Failed("nobody asks".to_owned()));
        }
        while let Some(request) = requests.next().await {
            if let Some(to) = request.reply {
                let published = client.publish(to, answer.clone()).await;
                published.map_err(Error::nats("answer"))?;
                taken.record(Duration::ZERO);
            }
        }
        Ok(())
    }
}

/// A command as gateways send it, in a batch of its own.
fn request() -> Result<Vec<u8>, Error> {
    let (caller, message) = one(1, 1)?;
    let request = Request {
        request_id: Uuid::now_v7().to_string(),
        traceparent: None,
        caller,
        event: None,
        command: Command::SendMessage(message),
    };
    Ok(wire::encode(&Batch {
        version: COMMAND_VERSION,
        budget_ms: 5000,
        sent: None,
        requests: vec![request],
    })?)
}

/// Its answer, as workers give it.
fn answer() -> Result<Vec<u8>, Error> {
    let (_, message) = one(1, 1)?;
    let sent = Outcome::Sent(Sent {
        message_id: message.message,
        conversation: message.conversation,
        seq: 1,
        created_at: Timestamp::new(OffsetDateTime::UNIX_EPOCH),
        duplicate: false,
        message: None,
    });
    Ok(wire::encode(&command::Part {
        version: COMMAND_VERSION,
        worker: Uuid::now_v7(),
        outcomes: vec![(0, Ok(sent))],
        waiting: Vec::new(),
    })?)
}
