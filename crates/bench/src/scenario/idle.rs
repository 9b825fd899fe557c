//! `idle`: what a gateway holds for each connection that says nothing, beside a bare server that holds as many sockets.

use std::time::Duration;

use confab_protocol::frame::Hello;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::limits::bare::{Bare, Kind};
use crate::load::{Connection, Hearing, People, connect_all, groups};
use crate::output::{Measured, Progress, row};
use crate::processes::{memory, resident};
use crate::stack::{Places, Shape, Stack};

/// How long a restarted gateway may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Memory counts as steady when it stayed within [`STEADY`] of itself for this many looks, [`LOOK`] apart.
const LOOKS: usize = 8;
const LOOK: Duration = Duration::from_millis(500);
const STEADY: f64 = 0.005;
/// How long it may take to be steady: presence is told and records are written behind the last welcome.
const PATIENCE: Duration = Duration::from_secs(90);

/// Opens connections and leaves them alone: the memory of each.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) places: Places,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: Load,
}

/// What is held.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[group(id = "idle")]
pub(crate) struct Load {
    /// Connections, all at one gateway.
    #[arg(long, env = "CONFAB_BENCH_CONNECTIONS", default_value_t = 5000)]
    pub(crate) connections: usize,
    /// Conversations of each connection's user.
    #[arg(long, env = "CONFAB_BENCH_CONVERSATIONS", default_value_t = 20)]
    pub(crate) conversations: usize,
    /// Members of each conversation.
    #[arg(long, env = "CONFAB_BENCH_MEMBERS", default_value_t = 100)]
    pub(crate) members: usize,
    /// Measure connections without conversations as well.
    #[arg(long, env = "CONFAB_BENCH_GROWTH")]
    pub(crate) growth: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            connections: 5000,
            conversations: 20,
            members: 100,
            growth: false,
        }
    }
}

/// What a process holds, in bytes for each connection above what it held without any.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    /// In memory and its own (`RssAnon`).
    pub(crate) own: f64,
    /// In memory (`VmRSS`).
    pub(crate) resident: f64,
    /// What it held of its own before, in bytes of all.
    pub(crate) empty: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// A gateway's connection whose user has conversations.
    pub(crate) gateway: Held,
    /// One whose user has none.
    pub(crate) without_conversations: Option<Held>,
    /// A bare server's socket, that is read and has a queue of what is to be written to it.
    pub(crate) bare: Held,
    /// The gateway's : the bare server's.
    pub(crate) ratio: f64,
}

pub(crate) async fn run(args: Args, progress: &Progress) -> Result<Measured, Error> {
    let outcome = measure(&args.places, &args.load, progress).await?;
    Measured::new("idle", &args, &outcome, outcome.rows(&args.load))
}

/// Measures a gateway and a bare server, one after the other.
pub(crate) async fn measure(
    places: &Places,
    load: &Load,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let bare = bare(places, load, progress).await?;
    let without_conversations = if load.growth {
        let load = Load {
            conversations: 0,
            ..load.clone()
        };
        Some(Box::pin(gateway(places, &load, progress)).await?)
    } else {
        None
    };
    let gateway = Box::pin(gateway(places, load, progress)).await?;
    Ok(Outcome {
        gateway,
        without_conversations,
        bare,
        ratio: gateway.own / bare.own,
    })
}

impl Outcome {
    fn rows(&self, load: &Load) -> Vec<(String, String)> {
        let kib = |bytes: f64| bytes / 1024.0;
        let held = |held: &Held| {
            format!(
                "{:.2} KiB of its own, {:.2} KiB resident ({:.1} MiB before)",
                kib(held.own),
                kib(held.resident),
                held.empty as f64 / 1_048_576.0
            )
        };
        let conversations = load.conversations;
        let mut rows = vec![row(
            format!("a connection with {conversations} conversations"),
            held(&self.gateway),
        )];
        if let Some(without) = &self.without_conversations {
            let each = (self.gateway.own - without.own) / load.conversations.max(1) as f64;
            rows.push(row("a connection without any", held(without)));
            rows.push(row("each conversation", format!("{each:.0} bytes")));
        }
        rows.push(row("a bare server's socket", held(&self.bare)));
        rows.push(row("ratio", format!("{:.2}", self.ratio)));
        rows
    }
}

/// A gateway that began anew after the conversations were made, so that what making them took is not taken for room that
/// connections need none of.
async fn gateway(places: &Places, load: &Load, progress: &Progress) -> Result<Held, Error> {
    progress.say("starting a confab");
    let shape = Shape {
        gateways: 1,
        ..Shape::default()
    };
    let mut stack = Stack::start(places, &shape).await?;
    let people = People::new(&stack.tokens, &stack.urls(), "idle", load.connections)?;
    progress.say("making conversations");
    let groups = groups(load.connections, load.members, load.conversations);
    people.begin(groups).await?;
    let Some(gateway) = stack.gateways.first_mut() else {
        return Err(Error::Failed("no gateway was started".to_owned()));
    };
    gateway.respawn()?;
    gateway.ready(READY).await?;
    let pid = gateway.process().id();
    let before = steady(pid, progress).await?;
    progress.say("connecting");
    let hearings = people.0.iter().map(|_| Box::new(|_: &[u8]| {}) as Hearing);
    let connections = connect_all(&people, Hello::default(), hearings).await?;
    let held = held(pid, before, &connections, progress).await?;
    drop(connections);
    stack.stop().await?;
    Ok(held)
}

async fn bare(places: &Places, load: &Load, progress: &Progress) -> Result<Held, Error> {
    progress.say("starting a bare server");
    let bare = Bare::start(places, Kind::Telling).await?;
    let before = steady(bare.pid(), progress).await?;
    let (mut connections, url) = (Vec::new(), bare.url());
    for _ in 0..load.connections {
        let opened = Connection::bare(&url, "", Box::new(|_: &[u8]| {}));
        connections.push(Box::pin(opened).await?);
    }
    let held = held(bare.pid(), before, &connections, progress).await?;
    drop(connections);
    bare.stop().await?;
    Ok(held)
}

#[derive(Debug, Clone, Copy)]
struct Memory {
    own: u64,
    resident: u64,
}

async fn held(
    pid: u32,
    before: Memory,
    connections: &[Connection],
    progress: &Progress,
) -> Result<Held, Error> {
    let after = steady(pid, progress).await?;
    if connections.iter().any(|connection| !connection.is_open()) {
        return Err(Error::Failed(
            "a connection broke while it was idle".to_owned(),
        ));
    }
    let each =
        |after: u64, before: u64| (after as f64 - before as f64) / connections.len().max(1) as f64;
    Ok(Held {
        own: each(after.own, before.own),
        resident: each(after.resident, before.resident),
        empty: before.own,
    })
}

/// What a process holds when that changes no more.
async fn steady(pid: u32, progress: &Progress) -> Result<Memory, Error> {
    let until = Instant::now() + PATIENCE;
    let mut looks: Vec<u64> = Vec::new();
    loop {
        let now = Memory {
            own: memory(pid),
            resident: resident(pid),
        };
        looks.push(now.own);
        progress.say(format!(
            "waiting for steady memory: {:.1} MiB",
            now.own as f64 / 1_048_576.0
        ));
        if is_steady(
            looks
                .get(looks.len().saturating_sub(LOOKS)..)
                .unwrap_or_default(),
        ) {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(Error::Timeout {
                what: "steady memory".to_owned(),
                within: PATIENCE,
            });
        }
        sleep(LOOK).await;
    }
}

fn is_steady(looks: &[u64]) -> bool {
    let (least, most) = (looks.iter().min(), looks.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        return false;
    };
    looks.len() >= LOOKS && (most - least) as f64 <= *most as f64 * STEADY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_steady_when_it_stayed_for_a_while() {
        assert!(!is_steady(&[100; LOOKS - 1]));
        assert!(is_steady(&[10_000; LOOKS]));
        assert!(!is_steady(&[10_000, 10_000, 10_000, 10_100, 1, 1, 1, 1]));
    }
}
