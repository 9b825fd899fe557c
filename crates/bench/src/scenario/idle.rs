//! `idle`: what a gateway holds for each connection that says nothing, beside a bare server that holds as many sockets.
//!
//! A process that has just started keeps some memory free, which connections use before it grows: so some are opened first, and what it
//! grows by for those behind them is what each holds.

use std::time::Duration;

use confab_protocol::frame::Hello;
use serde::Serialize;

use crate::Error;
use crate::limits::baseline::{Baseline, BaselineKind};
use crate::load::{Connection, Hearing, LoadUsers, connect_all, groups};
use crate::output::{Measured, Progress, row};
use crate::stack::{Places, Stack, StackShape};
use crate::target::OwnOnly;

mod held;

pub(crate) use held::HeldMemory;

use held::steady;

/// How long a restarted gateway may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// One of so many connections is opened first, where nothing else is asked for.
const FIRST_SHARE: usize = 5;
/// For how long memory must not change.
pub(crate) const SETTLE_SECONDS: f64 = 4.0;

/// Opens connections and leaves them alone: the memory of each.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) places: Places,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) own_only: OwnOnly,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: IdleLoad,
}

/// What is held.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[group(id = "idle")]
pub(crate) struct IdleLoad {
    /// Connections, all at one gateway.
    #[arg(long, env = "CONFAB_BENCH_CONNECTIONS", default_value_t = 5000)]
    pub(crate) connections: usize,
    /// Those of them that are opened first: what each further one holds is measured. Without it, a fifth.
    #[arg(long, env = "CONFAB_BENCH_FIRST")]
    pub(crate) first: Option<usize>,
    /// Conversations of each connection's user.
    #[arg(long, env = "CONFAB_BENCH_CONVERSATIONS", default_value_t = 20)]
    pub(crate) conversations: usize,
    /// Members of each conversation.
    #[arg(long, env = "CONFAB_BENCH_MEMBERS", default_value_t = 100)]
    pub(crate) members: usize,
    /// Measure connections without conversations as well.
    #[arg(long, env = "CONFAB_BENCH_GROWTH")]
    pub(crate) growth: bool,
    /// Seconds for which memory has not changed when it is read.
    #[arg(long, env = "CONFAB_BENCH_SETTLE", default_value_t = SETTLE_SECONDS)]
    pub(crate) settle: f64,
}

impl Default for IdleLoad {
    fn default() -> Self {
        Self {
            connections: 5000,
            first: None,
            conversations: 20,
            members: 100,
            growth: false,
            settle: SETTLE_SECONDS,
        }
    }
}

impl IdleLoad {
    /// How many are opened first.
    fn first(&self) -> Result<usize, Error> {
        let first = self.first.unwrap_or(self.connections / FIRST_SHARE);
        if first < self.connections {
            Ok(first)
        } else {
            let why = "idle connections need one more than those that are opened first";
            Err(Error::Failed(why.to_owned()))
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdleOutcome {
    /// A gateway's connection whose user has conversations.
    pub(crate) gateway: HeldMemory,
    /// One whose user has none.
    pub(crate) without_conversations: Option<HeldMemory>,
    /// A bare server's socket, that is read and has a queue of what is to be written to it.
    pub(crate) bare: HeldMemory,
    /// The gateway's : the bare server's, of each further connection; none where too few were opened to tell.
    pub(crate) ratio: Option<f64>,
}

pub(crate) async fn run(args: IdleArgs, progress: &Progress) -> Result<Measured, Error> {
    args.own_only.check("idle")?;
    let outcome = measure(&args.places, &args.load, progress).await?;
    Measured::new("idle", &args, &outcome, outcome.rows(&args.load))
}

/// Measures a gateway and a bare server, one after the other.
pub(crate) async fn measure(
    places: &Places,
    load: &IdleLoad,
    progress: &Progress,
) -> Result<IdleOutcome, Error> {
    let bare = baseline(places, load, progress).await?;
    let without_conversations = if load.growth {
        let load = IdleLoad {
            conversations: 0,
            ..load.clone()
        };
        Some(Box::pin(gateway(places, &load, progress)).await?)
    } else {
        None
    };
    let gateway = Box::pin(gateway(places, load, progress)).await?;
    Ok(IdleOutcome {
        ratio: gateway.over(&bare),
        gateway,
        without_conversations,
        bare,
    })
}

impl IdleOutcome {
    fn rows(&self, load: &IdleLoad) -> Vec<(String, String)> {
        let conversations = load.conversations;
        let mut rows = vec![
            row("connections", load.connections.to_string()),
            row(
                format!("each further one with {conversations} conversations"),
                self.gateway.text(),
            ),
        ];
        if let Some(without) = &self.without_conversations {
            let each = (self.gateway.own - without.own) / load.conversations.max(1) as f64;
            rows.push(row("each further one without any", without.text()));
            rows.push(row("each conversation", format!("{each:.0} bytes")));
        }
        rows.push(row(
            "each further socket of a bare server",
            self.bare.text(),
        ));
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}"));
        let ratio = ratio.unwrap_or_else(|| "too few connections to tell".to_owned());
        rows.push(row("ratio", ratio));
        rows
    }
}

/// A gateway that began anew after the conversations were made, so that what making them took is not taken for room that
/// connections need none of. The first connections have conversations of their own: each further one brings its share of those that the
/// gateway knows.
async fn gateway(
    places: &Places,
    load: &IdleLoad,
    progress: &Progress,
) -> Result<HeldMemory, Error> {
    let first = load.first()?;
    progress.say("starting a confab");
    let shape = StackShape {
        gateways: 1,
        ..StackShape::default()
    };
    let mut stack = Stack::start(places, &shape).await?;
    let mut users = LoadUsers::new(&stack.tokens, &stack.urls(), "idle", load.connections)?;
    let further = LoadUsers(users.0.split_off(first));
    progress.say("making conversations");
    for users in [&users, &further] {
        let groups = groups(users.0.len(), load.members, load.conversations);
        users.begin(groups).await?;
    }
    let Some(gateway) = stack.gateways.first_mut() else {
        return Err(Error::Failed("no gateway was started".to_owned()));
    };
    gateway.respawn()?;
    gateway.ready(READY_TIMEOUT).await?;
    let pid = gateway.process().id();
    let at_start = steady(pid, load.settle, progress).await?;
    let mut connections = connect(&users, progress).await?;
    let with_first = steady(pid, load.settle, progress).await?;
    connections.extend(connect(&further, progress).await?);
    let with_all = steady(pid, load.settle, progress).await?;
    let held = HeldMemory::of_open(pid, [at_start, with_first, with_all], first, &connections)?;
    stack.stop().await?;
    Ok(held)
}

async fn connect(users: &LoadUsers, progress: &Progress) -> Result<Vec<Connection>, Error> {
    progress.say("connecting");
    let hearings = users.0.iter().map(|_| Box::new(|_: &[u8]| {}) as Hearing);
    connect_all(users, Hello::default(), hearings).await
}

/// The same of a bare server.
pub(crate) async fn baseline(
    places: &Places,
    load: &IdleLoad,
    progress: &Progress,
) -> Result<HeldMemory, Error> {
    let first = load.first()?;
    progress.say("starting a bare server");
    let bare = Baseline::start(places, BaselineKind::Telling).await?;
    let (pid, url, mut connections) = (bare.pid(), bare.url(), Vec::new());
    let at_start = steady(pid, load.settle, progress).await?;
    open_up_to(first, &url, &mut connections).await?;
    let with_first = steady(pid, load.settle, progress).await?;
    open_up_to(load.connections, &url, &mut connections).await?;
    let with_all = steady(pid, load.settle, progress).await?;
    let held = HeldMemory::of_open(pid, [at_start, with_first, with_all], first, &connections)?;
    bare.stop().await?;
    Ok(held)
}

/// Opens sockets of a bare server until there are so many.
async fn open_up_to(
    count: usize,
    url: &str,
    connections: &mut Vec<Connection>,
) -> Result<(), Error> {
    while connections.len() < count {
        let opened = Connection::unwelcomed(url, "", Box::new(|_: &[u8]| {}));
        connections.push(Box::pin(opened).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_opened_first_and_never_all() {
        let first = |connections, first| {
            let load = IdleLoad {
                connections,
                first,
                ..IdleLoad::default()
            };
            load.first().ok()
        };
        assert_eq!(first(5000, None), Some(1000));
        assert_eq!(first(1, None), Some(0));
        assert_eq!(first(10, Some(9)), Some(9));
        assert_eq!((first(10, Some(10)), first(0, None)), (None, None));
    }
}
