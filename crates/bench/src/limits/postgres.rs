//! Postgres: messages that are committed by confab's own statement, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser as _;
use confab_protocol::command::{Caller, SendAnswer, SendMessage};
use confab_protocol::ids::{ClientId, EventId};
use confab_protocol::json::JsonText;
use confab_worker::parts::Commits;
use futures_util::future::try_join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::sender::{MeasuredServer, PartMeasurement, Window, isolated, measure};
use crate::Error;
use crate::load::Latencies;
use crate::seed::{Seed, conversation_id, message, user_id};
use crate::stack::Servers;

/// Where the messages go: as many conversations as those of `send`, of two members each.
pub(crate) const TARGET_CONVERSATIONS: Seed = Seed {
    events: 1000,
    conversations: 1000,
    members: 2,
    text: super::TEXT_CHARS,
};

/// A worker's settings, as they are when nothing else is asked for.
#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(flatten)]
    settings: confab_worker::Settings,
}

/// The settings of a worker over these servers.
pub(crate) fn settings(servers: &Servers) -> Result<confab_worker::Settings, Error> {
    let (database, nats) = (&servers.database, servers.nats.url());
    let arguments = ["worker", "--database-url", database, "--nats-url", &nats];
    let parsed = Arguments::try_parse_from(arguments);
    let parsed = parsed.map_err(|error| Error::Failed(error.to_string()))?;
    Ok(parsed.settings)
}

/// Commits batches of `events` messages over `connections`, each with one batch at a time, into a database that
/// [`TARGET_CONVERSATIONS`] filled. An operation is a message; the latency is a batch's.
pub(crate) async fn batches(
    servers: &mut Servers,
    events: u64,
    connections: u32,
    length: Duration,
) -> Result<PartMeasurement, Error> {
    let server = MeasuredServer::Postgres(servers.postgres.process()?.id());
    let settings = settings(servers)?;
    let window = Window::of(length);
    isolated(move || async move {
        let commits = Commits::new(&settings, connections)?;
        let (taken, next) = (Latencies::default(), AtomicU64::new(0));
        let lanes = (0..u64::from(connections)).map(|lane| {
            let of_lane = Lane {
                lane,
                lanes: u64::from(connections),
                events,
            };
            of_lane.run(&commits, &taken, &next)
        });
        let work = async { try_join_all(lanes).await.map(drop) };
        measure(work, &taken, events as f64, server, window).await
    })
    .await
}

/// Commits messages one after the other, each alone, over one connection.
pub(crate) async fn single(
    servers: &mut Servers,
    length: Duration,
) -> Result<PartMeasurement, Error> {
    batches(servers, 1, 1, length).await
}

/// One connection's batches. As a worker's lanes, those of one never have a conversation with those of another.
struct Lane {
    lane: u64,
    lanes: u64,
    events: u64,
}

impl Lane {
    async fn run(
        self,
        commits: &Commits,
        taken: &Latencies,
        next: &AtomicU64,
    ) -> Result<(), Error> {
        loop {
            let first = next.fetch_add(self.events, Ordering::Relaxed);
            let batch = (first..first + self.events).map(|n| self.message(n));
            let batch = batch.collect::<Result<Vec<_>, _>>()?;
            let (count, began) = (batch.len(), Instant::now());
            let stored = commits.append(batch).await?;
            taken.record(began.elapsed());
            if stored != count {
                let why = format!("{stored} of {count} messages were stored");
                return Err(Error::Failed(why));
            }
        }
    }

    fn message(&self, n: u64) -> Result<(Caller, SendMessage), Error> {
        let mine = TARGET_CONVERSATIONS.conversations / self.lanes;
        one(n % mine * self.lanes + self.lane, n)
    }
}

/// A message into a conversation, by one of its members.
pub(crate) fn one(conversation: u64, n: u64) -> Result<(Caller, SendMessage), Error> {
    let tenant = "default".parse();
    let caller = Caller {
        tenant: tenant.map_err(|_invalid| Error::Failed("no tenant".to_owned()))?,
        user: user_id(TARGET_CONVERSATIONS.member(conversation, n))?,
        admin: false,
    };
    let message = SendMessage {
        conversation: conversation_id(conversation),
        message: EventId(Uuid::now_v7()),
        client_id: ClientId(Uuid::now_v7()),
        payload: JsonText::trusted(message(n, TARGET_CONVERSATIONS.text)?),
        reply_to: None,
        answer: SendAnswer::Ack,
    };
    Ok((caller, message))
}
