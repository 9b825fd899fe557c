//! `send`: durable sends, acknowledged and heard by every member.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::Latency;
use crate::output::{Measured, Progress, row};
use crate::processes::Usage;
use crate::target::{Target, Which};

mod prebuilt;
mod sending;

pub(crate) use prebuilt::Prebuilt;

/// Sends messages to conversations, at a rate or as fast as they are taken.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) target: Which,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: SendLoad,
}

/// What is sent.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendLoad {
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

impl Default for SendLoad {
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
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendOutcome {
    /// Acknowledged a second, while it was measured.
    pub(crate) sends: f64,
    /// Events heard a second, by all connections together.
    pub(crate) events: f64,
    /// From the intended time of a send to its acknowledgement, in milliseconds.
    pub(crate) acknowledged: Latency,
    /// From the intended time of a send to its event at a member.
    pub(crate) heard: Latency,
    /// How late the load itself was: from the intended time until the message was handed to its connection. Part of the above.
    pub(crate) late: Latency,
    /// Refused while it was measured.
    pub(crate) failed: u64,
    /// Neither acknowledged nor refused some seconds after the end.
    pub(crate) unanswered: u64,
    /// Processors' time of each send, in microseconds by part.
    pub(crate) processor: Option<Usage>,
}

pub(crate) async fn run(args: SendArgs, progress: &Progress) -> Result<Measured, Error> {
    progress.say("starting a confab");
    let mut target = Target::start(&args.target).await?;
    let outcome = measure(&mut target, &args.load, progress).await?;
    target.stop().await?;
    let rows = outcome.rows();
    Measured::new("send", &args, &outcome, rows)
}

impl SendOutcome {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            row("acknowledged", format!("{:.0} a second", self.sends)),
            row("events heard", format!("{:.0} a second", self.events)),
            row("until the acknowledgement", self.acknowledged.text()),
            row("until a member has it", self.heard.text()),
            row("of which the load was late", self.late.text()),
            row("refused", self.failed.to_string()),
            row("unanswered", self.unanswered.to_string()),
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

/// Puts the load on a confab.
pub(crate) async fn measure(
    target: &mut Target,
    load: &SendLoad,
    progress: &Progress,
) -> Result<SendOutcome, Error> {
    let prebuilt = Prebuilt::new(target, load, progress).await?;
    prebuilt.put(target, load, progress).await
}
