//! What the parts can do here: each measured by the simplest program that does only that.
//!
//! A client is one thread, so that its processor's time is known apart from the server's and from that of whoever is asked.

use std::time::Duration;

use serde::Serialize;

use crate::Error;
use crate::output::{Measured, Progress, row};
use crate::scenario::idle::HeldMemory;
use crate::seed::fill;
use crate::stack::{Places, Servers};
use crate::target::OwnOnly;

pub(crate) mod baseline;
pub(crate) mod jetstream;
pub(crate) mod nats;
pub(crate) mod postgres;
mod sender;
mod sockets;

pub(crate) use sender::PartMeasurement;

use sockets::BareFanOut;

/// Characters of a message's text, as `send` has them.
const TEXT_CHARS: usize = 200;
/// Messages of a batch.
const BATCH_SIZES: [u64; 4] = [1, 10, 50, 200];
/// Requests, and publishes, that are on the way at once.
pub(crate) const IN_FLIGHT: usize = 256;

/// Measures what Postgres, NATS and a bare WebSocket server can do here without confab.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitsSettings {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) places: Places,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) own_only: OwnOnly,
    /// Seconds that each part is measured.
    #[arg(long, env = "CONFAB_BENCH_PART_SECONDS", default_value_t = 3.0)]
    pub(crate) part_seconds: f64,
    /// Sockets of the bare server. Each takes an open file here, and one there.
    #[arg(long, env = "CONFAB_BENCH_SOCKETS", default_value_t = 1000)]
    pub(crate) sockets: usize,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Messages that are committed one after the other, each alone.
    pub(crate) single_commit: PartMeasurement,
    /// Messages that are committed in batches, over a connection for each of a worker's lanes.
    pub(crate) batch_commits: Vec<BatchCommits>,
    /// A request and its answer, one at a time.
    pub(crate) round_trip: nats::Requests,
    /// Many of them at once.
    pub(crate) requests: nats::Requests,
    /// Events published into the stream, each once, many unacknowledged.
    pub(crate) publish: PartMeasurement,
    /// An ordered consumer of all that is in the stream.
    pub(crate) replay: PartMeasurement,
    /// Ordered consumers of what is published meanwhile.
    pub(crate) live: jetstream::Live,
    /// Frames that a bare WebSocket server writes to all of its sockets.
    pub(crate) bare_fan_out: BareFanOut,
    /// What a bare WebSocket server holds for a socket that is idle.
    pub(crate) bare_idle: HeldMemory,
}

/// Batches of one size.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchCommits {
    /// Messages of each.
    pub(crate) events: u64,
    pub(crate) connections: u32,
    /// An operation is a message; the latency is a batch's.
    #[serde(flatten)]
    pub(crate) part: PartMeasurement,
}

pub(crate) async fn run(settings: LimitsSettings, progress: &Progress) -> Result<Measured, Error> {
    settings.own_only.check("limits")?;
    let limits = Box::pin(measure(&settings, progress)).await?;
    let rows = limits.rows();
    Measured::new("limits", &settings, &limits, rows)
}

/// NATS and Postgres, with the conversations that are written into.
pub(crate) async fn start(places: &Places) -> Result<Servers, Error> {
    let servers = Servers::start(places).await?;
    fill(&servers.database, &postgres::TARGET_CONVERSATIONS, |_| ()).await?;
    Ok(servers)
}

/// Each part in its turn.
async fn measure(settings: &LimitsSettings, progress: &Progress) -> Result<Limits, Error> {
    let length = Duration::try_from_secs_f64(settings.part_seconds);
    let length = length.map_err(|error| Error::Failed(format!("--part-seconds: {error}")))?;
    let (places, sockets) = (&settings.places, settings.sockets);
    progress.say("starting NATS and Postgres");
    let mut running = start(places).await?;
    let servers = &mut running;
    progress.say("committing messages one by one");
    let single_commit = postgres::single(servers, length).await?;
    let connections = postgres::settings(servers)?.commit_lanes;
    let mut batch_commits = Vec::new();
    for events in BATCH_SIZES {
        progress.say(format!("committing batches of {events}"));
        let part = postgres::batches(servers, events, connections, length).await?;
        batch_commits.push(BatchCommits {
            events,
            connections,
            part,
        });
    }
    progress.say("asking by NATS");
    let round_trip = nats::requests(servers, 1, length).await?;
    let requests = nats::requests(servers, IN_FLIGHT, length).await?;
    progress.say("publishing into JetStream");
    let publish = jetstream::publish(servers, IN_FLIGHT, length).await?;
    progress.say("reading from JetStream");
    let replay = jetstream::replay(servers, length).await?;
    let live = jetstream::live(servers, IN_FLIGHT, &publish, length).await?;
    running.stop().await?;
    let bare_fan_out = sockets::fan_out(places, sockets, length, progress).await?;
    let bare_idle = sockets::idle(places, sockets, length, progress).await?;
    Ok(Limits {
        single_commit,
        batch_commits,
        round_trip,
        requests,
        publish,
        replay,
        live,
        bare_fan_out,
        bare_idle,
    })
}

impl Limits {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![row(
            "commits of one message, one by one",
            cell(&self.single_commit),
        )];
        rows.extend(self.batch_commits.iter().map(|batch| {
            let BatchCommits {
                events,
                connections,
                part,
            } = batch;
            let what = format!("messages committed by {events}, {connections} connections");
            row(what, cell(part))
        }));
        let asked = |requests: &nats::Requests| {
            let answering = requests.responder_micros;
            format!(
                "{}, {answering:.1} us who answers",
                cell(&requests.requester)
            )
        };
        rows.extend([
            row("NATS requests, one by one", asked(&self.round_trip)),
            row(
                format!("NATS requests, {IN_FLIGHT} at once"),
                asked(&self.requests),
            ),
            row(
                format!("JetStream publishes, {IN_FLIGHT} at once"),
                cell(&self.publish),
            ),
            row("JetStream deliveries of what is there", cell(&self.replay)),
            row(
                format!(
                    "JetStream deliveries of what comes, {} consumers",
                    self.live.consumers
                ),
                cell(&self.live.delivery),
            ),
            row(
                format!(
                    "frames of a bare server to {} sockets",
                    self.bare_fan_out.sockets
                ),
                cell(&self.bare_fan_out.part),
            ),
            row(
                "each further idle socket of a bare server",
                self.bare_idle.text(),
            ),
        ]);
        rows
    }
}

/// A part in one line.
fn cell(part: &PartMeasurement) -> String {
    let latency = &part.latency;
    let took = if latency.max > 0.0 {
        format!("; p50 {:.3} ms, p99 {:.3} ms", latency.p50, latency.p99)
    } else {
        String::new()
    };
    format!(
        "{:.0} a second{took}; {:.1} us server, {:.1} us client",
        part.per_second, part.server_micros, part.client_micros
    )
}
