//! `send`: durable sends, acknowledged and heard by every member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confab_client::Http;
use confab_protocol::frame::Hello;
use memchr::memmem::Finder;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Error;
use crate::load::{Hearing, Latencies, Latency, Pace, People, Sent, connect_all};
use crate::output::{Measured, Progress, row};
use crate::processes::Usage;
use crate::target::{Target, Which};

mod sending;

use sending::{Sender, Sending, Timing, Way};

/// Sends messages to conversations, at a rate or as fast as they are taken.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) target: Which,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: Load,
}

/// What is sent.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    /// Messages a second, at times that do not wait for answers.
    #[arg(long, env = "CONFAB_BENCH_RATE", default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// As many as are taken, with `--in-flight` of them on the way, in place of a rate.
    #[arg(long, env = "CONFAB_BENCH_MAX")]
    pub(crate) max: bool,
    /// Messages of a connection that are on the way at most, when as many are sent as are taken.
    #[arg(long, env = "CONFAB_BENCH_IN_FLIGHT", default_value_t = 8)]
    pub(crate) in_flight: usize,
    /// Connections, spread over the gateways.
    #[arg(long, env = "CONFAB_BENCH_CONNECTIONS", default_value_t = 64)]
    pub(crate) connections: usize,
    /// Connections that send; without it, all.
    #[arg(long, env = "CONFAB_BENCH_SENDERS")]
    pub(crate) senders: Option<usize>,
    /// Conversations, spread over the connections.
    #[arg(long, env = "CONFAB_BENCH_CONVERSATIONS", default_value_t = 1000)]
    pub(crate) conversations: usize,
    /// Members of each conversation.
    #[arg(long, env = "CONFAB_BENCH_MEMBERS", default_value_t = 2)]
    pub(crate) members: usize,
    /// Characters of each message's text.
    #[arg(long, env = "CONFAB_BENCH_TEXT", default_value_t = 200)]
    pub(crate) text: usize,
    /// By HTTP in place of the WebSocket; events come by WebSocket all the same.
    #[arg(long, env = "CONFAB_BENCH_HTTP")]
    pub(crate) http: bool,
    /// Seconds of load before it is measured.
    #[arg(long, env = "CONFAB_BENCH_WARM_UP", default_value_t = 3)]
    pub(crate) warm_up: u64,
    /// Seconds that are measured.
    #[arg(long, env = "CONFAB_BENCH_SECONDS", default_value_t = 10)]
    pub(crate) seconds: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rate: 1000.0,
            max: false,
            in_flight: 8,
            connections: 64,
            senders: None,
            conversations: 1000,
            members: 2,
            text: 200,
            http: false,
            warm_up: 3,
            seconds: 10,
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// Acknowledged a second.
    pub(crate) sends: f64,
    /// Events heard a second, by all connections together.
    pub(crate) events: f64,
    /// From the intended time of a send to its acknowledgement, in milliseconds.
    pub(crate) acknowledged: Latency,
    /// From the intended time of a send to its event at a member.
    pub(crate) heard: Latency,
    /// Refused or unanswered while it was measured.
    pub(crate) failed: u64,
    /// Processors' time of each send, in microseconds by part.
    pub(crate) processor: Option<Usage>,
}

pub(crate) async fn run(args: Args, progress: &Progress) -> Result<Measured, Error> {
    progress.say("starting a confab");
    let mut target = Target::start(&args.target).await?;
    let outcome = measure(&mut target, &args.load, progress).await?;
    target.stop().await?;
    let rows = outcome.rows();
    Measured::new("send", &args, &outcome, rows)
}

impl Outcome {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            row("acknowledged", format!("{:.0} a second", self.sends)),
            row("events heard", format!("{:.0} a second", self.events)),
            row("until the acknowledgement", self.acknowledged.text()),
            row("until a member has it", self.heard.text()),
            row("failed", self.failed.to_string()),
        ];
        rows.extend(self.processor.map(|used| {
            row(
                "processors' time of a send",
                format!(
                    "{:.0} us: gateways {:.0}, workers {:.0}, NATS {:.0}, Postgres {:.0}; the load {:.0} more",
                    used.service(),
                    used.gateways,
                    used.workers,
                    used.nats,
                    used.postgres,
                    used.load
                ),
            )
        }));
        rows
    }
}

/// What connections hear, added up.
#[derive(Debug, Default)]
struct Heard {
    acknowledged: Latencies,
    events: Latencies,
    failed: AtomicU64,
}

/// Puts the load on a confab.
pub(crate) async fn measure(
    target: &mut Target,
    load: &Load,
    progress: &Progress,
) -> Result<Outcome, Error> {
    progress.say("making users and conversations");
    let people = People::new(target.tokens(), &target.urls(), "sender", load.connections)?;
    let senders = senders(load, &people).await?;
    progress.say("connecting");
    let sent = Arc::new(Sent::new());
    let heard = Arc::new(Heard::default());
    let rooms: Vec<_> = (0..load.connections)
        .map(|_| Arc::new(Semaphore::new(load.in_flight)))
        .collect();
    let hearings = rooms
        .iter()
        .map(|room| hearing(Arc::clone(&sent), Arc::clone(&heard), Arc::clone(room)));
    let connections = connect_all(&people, Hello::default(), hearings).await?;
    let connections: Vec<_> = connections.into_iter().map(Arc::new).collect();
    let mut sending = JoinSet::new();
    let from = Instant::now() + Duration::from_millis(100);
    let parts = senders.len();
    for (part, sender) in senders.into_iter().enumerate() {
        let (Some(connection), Some(room)) =
            (connections.get(sender.place), rooms.get(sender.place))
        else {
            return Err(Error::Failed("more senders than connections".to_owned()));
        };
        let timing = if load.max {
            Timing::AsTaken(Arc::clone(room))
        } else {
            Timing::AtPace(Pace::new(from, load.rate, part, parts))
        };
        let way = match people.0.get(sender.place) {
            Some(person) if load.http => {
                Way::Http(Http::new(&person.url, &person.token)?, Arc::clone(&heard))
            }
            _ => Way::Socket(Arc::clone(connection)),
        };
        let sending_one = Sending {
            way,
            sent: Arc::clone(&sent),
            text: "x".repeat(load.text),
        };
        sending.spawn(sending_one.run(sender.conversations, timing));
    }
    progress.say("warming up");
    sleep(Duration::from_secs(load.warm_up)).await;
    let outcome = watch(target, load, &heard, progress).await?;
    sending.abort_all();
    if connections.iter().any(|connection| !connection.is_open()) {
        return Err(Error::Failed(
            "a connection broke under the load".to_owned(),
        ));
    }
    Ok(outcome)
}

/// Begins the conversations, and says who sends to which: each is sent to by its first member.
async fn senders(load: &Load, people: &People) -> Result<Vec<Sender>, Error> {
    let count = load
        .senders
        .unwrap_or(load.connections)
        .min(load.connections);
    if count == 0 || load.conversations == 0 || load.members > load.connections {
        return Err(Error::Failed(
            "a load needs senders, conversations, and a connection for each member".to_owned(),
        ));
    }
    let members =
        |number: usize| (0..load.members).map(move |n| (number % count + n) % load.connections);
    let groups = (0..load.conversations).map(|number| members(number).collect());
    let ids = people.begin(groups.collect()).await?;
    let of = |place: usize| {
        let own = ids.iter().skip(place).step_by(count).copied();
        Sender {
            place,
            conversations: own.collect(),
        }
    };
    Ok((0..count)
        .map(of)
        .filter(|one| !one.conversations.is_empty())
        .collect())
}

fn hearing(sent: Arc<Sent>, heard: Arc<Heard>, room: Arc<Semaphore>) -> Hearing {
    let (id, client_id) = (Finder::new(br#""id":""#), Finder::new(br#""clientId":""#));
    let (id, client_id) = (id.into_owned(), client_id.into_owned());
    Box::new(move |payload| {
        if payload.starts_with(br#"{"type":"message.created""#) {
            if let Some(took) = sent.took_by(payload, &client_id) {
                heard.events.record(took);
            }
        } else if payload.starts_with(br#"{"type":"ack""#) {
            if let Some(took) = sent.took_by(payload, &id) {
                heard.acknowledged.record(took);
            }
            room.add_permits(1);
        } else if payload.starts_with(br#"{"type":"error""#) {
            heard.failed.fetch_add(1, Ordering::Relaxed);
            room.add_permits(1);
        }
    })
}

/// Measures what comes for as long as the load says.
async fn watch(
    target: &mut Target,
    load: &Load,
    heard: &Heard,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let (before, began) = (target.usage()?, Instant::now());
    heard.acknowledged.take();
    heard.events.take();
    heard.failed.store(0, Ordering::Relaxed);
    for second in 0..load.seconds {
        sleep_until(began + Duration::from_secs(second)).await;
        let so_far = heard.acknowledged.count() as f64 / began.elapsed().as_secs_f64();
        progress.say(format!(
            "{second} of {} s: {so_far:.0} sends/s",
            load.seconds
        ));
    }
    sleep_until(began + Duration::from_secs(load.seconds)).await;
    let (acknowledged, events) = (heard.acknowledged.take(), heard.events.take());
    let (after, seconds) = (target.usage()?, began.elapsed().as_secs_f64());
    let used = before.zip(after).map(|(before, after)| after.since(before));
    Ok(Outcome {
        sends: acknowledged.count as f64 / seconds,
        events: events.count as f64 / seconds,
        processor: used.map(|used| used.micros_each(acknowledged.count as f64)),
        failed: heard.failed.load(Ordering::Relaxed),
        acknowledged,
        heard: events,
    })
}
