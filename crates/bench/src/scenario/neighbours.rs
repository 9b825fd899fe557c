//! `neighbours`: what one user at its worst costs another of the same tenant.

use serde::Serialize;

use crate::Error;
use crate::load::Isolated;
use crate::output::{Measured, Progress, row};
use crate::scenario::send;
use crate::target::{Target, Which};

mod loud;

use loud::{Loud, Worst};

/// Sends at a small rate, alone and while another user does its worst, in turn.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NeighboursArgs {
    #[command(flatten)]
    #[serde(skip)]
    target: Which,
    /// What the other user does, in place of each in turn.
    #[arg(long, env = "CONFAB_BENCH_WORST", value_delimiter = ',')]
    worst: Vec<Worst>,
    /// Sends a second of those beside it.
    #[arg(long, env = "CONFAB_BENCH_RATE", default_value_t = 100.0)]
    rate: f64,
    /// Sockets of the other user, where it sends frames.
    #[arg(long, env = "CONFAB_BENCH_SOCKETS", default_value_t = 4)]
    sockets: usize,
    /// How much the other user does it with: conversations of additions, changes and presence.
    #[arg(long, env = "CONFAB_BENCH_CONVERSATIONS", default_value_t = 100)]
    conversations: usize,
    /// Seconds that each is measured.
    #[arg(long, env = "CONFAB_BENCH_SECONDS", default_value_t = 10)]
    seconds: u64,
}

/// Sends of neighbours, alone and beside the worst.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct NeighbourDelta {
    worst: Worst,
    alone: send::SendOutcome,
    beside: send::SendOutcome,
    /// p99 until the acknowledgement beside it : alone.
    ratio: f64,
    /// The same until a member has it.
    heard_ratio: f64,
}

pub(crate) async fn run(args: NeighboursArgs, progress: &Progress) -> Result<Measured, Error> {
    progress.say("starting a confab");
    let mut target = Target::start(&args.target).await?;
    let load = send::SendLoad {
        rate: args.rate,
        connections: 20,
        conversations: 20,
        warm_up: 1,
        seconds: args.seconds,
        ..send::SendLoad::default()
    };
    let neighbours = send::Prebuilt::new(&target, &load, progress).await?;
    let all = if args.worst.is_empty() {
        Worst::ALL_KINDS.to_vec()
    } else {
        args.worst.clone()
    };
    let mut measured = Vec::new();
    for worst in all {
        let alone = neighbours.put(&mut target, &load, progress).await?;
        progress.say(format!("preparing {worst:?}"));
        let (user, isolated) = (loud::user(&target)?, Isolated::new()?);
        let loud = Loud::start(user, worst, args.sockets, args.conversations);
        let loud = isolated.run(loud).await?;
        let beside = neighbours.put(&mut target, &load, progress).await?;
        loud.stop().await;
        measured.push(NeighbourDelta {
            worst,
            ratio: beside.acknowledged.p99 / alone.acknowledged.p99,
            heard_ratio: beside.heard.p99 / alone.heard.p99,
            alone,
            beside,
        });
    }
    drop(neighbours);
    target.stop().await?;
    let rows = measured.iter().flat_map(NeighbourDelta::rows).collect();
    Measured::new("neighbours", &args, &measured, rows)
}

impl NeighbourDelta {
    fn rows(&self) -> Vec<(String, String)> {
        let Self { alone, beside, .. } = self;
        let lost = beside.failed + beside.unanswered;
        vec![
            row("alone", alone.acknowledged.text()),
            row(
                format!("beside {:?}", self.worst),
                beside.acknowledged.text(),
            ),
            row(
                "p99 beside it : alone, acknowledged and heard",
                format!("{:.1}, {:.1}", self.ratio, self.heard_ratio),
            ),
            row("of which the load was late", beside.late.text()),
            row("refused or unanswered beside it", lost.to_string()),
        ]
    }
}
