//! `history`: pages and lists over a database of many events, beside the same over a small one.

use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Error;
use crate::load::{Latencies, Latency, Pace};
use crate::output::{Measured, Progress, row};
use crate::seed::Seed;
use crate::stack::Places;
use crate::target::OwnOnly;

mod buffers;
mod calls;
mod installation;
mod prebuilt;

pub(crate) use calls::Call;

use buffers::Buffers;
use installation::{Installation, prepare};

/// Calls that wait for their answers at most.
const MAX_PENDING_CALLS: usize = 256;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What the small installation holds.
const SMALL_SEED: Seed = Seed {
    events: 10_000,
    conversations: 100,
    members: CONVERSATION_MEMBERS,
    text: TEXT_CHARS,
};
const CONVERSATION_MEMBERS: u64 = 4;
const TEXT_CHARS: usize = 200;

/// Reads pages and lists of an installation with many events, and of a small one in turn.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistorySettings {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) places: Places,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) own_only: OwnOnly,
    /// Events of the large database. It is made once and kept.
    #[arg(
        long,
        env = "CONFAB_BENCH_HISTORY_EVENTS",
        default_value_t = 10_000_000
    )]
    pub(crate) events: u64,
    /// Conversations of the large database.
    #[arg(
        long,
        env = "CONFAB_BENCH_HISTORY_CONVERSATIONS",
        default_value_t = 100_000
    )]
    pub(crate) conversations: u64,
    /// Only make the large database.
    #[arg(long, env = "CONFAB_BENCH_PREPARE")]
    #[serde(skip)]
    pub(crate) prepare: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) asking: Asking,
}

/// How is asked.
#[derive(Debug, Clone, Copy, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asking {
    /// Calls a second, at times that do not wait for answers.
    #[arg(long, env = "CONFAB_BENCH_CALL_RATE", default_value_t = 100.0)]
    pub(crate) call_rate: f64,
    /// Rounds for each call and database, in turn.
    #[arg(long, env = "CONFAB_BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Seconds of a round.
    #[arg(long, env = "CONFAB_BENCH_ROUND_SECONDS", default_value_t = 1.0)]
    pub(crate) round_seconds: f64,
}

/// A call to both.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compared {
    pub(crate) call: Call,
    pub(crate) large: Answers,
    pub(crate) small: Answers,
    /// The median time of the large one, divided by that of the small one.
    pub(crate) ratio: f64,
}

/// What one gave.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answers {
    /// From the intended time of a call until its answer was read, in milliseconds.
    pub(crate) latency: Latency,
    /// Items of an answer, on average.
    pub(crate) items: f64,
    /// Processors' time of Postgres for each call, in microseconds.
    pub(crate) postgres_micros: f64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct History {
    pub(crate) large: Seed,
    pub(crate) small: Seed,
    pub(crate) calls: Vec<Compared>,
    /// What a page of messages touches.
    pub(crate) large_buffers: Buffers,
    pub(crate) small_buffers: Buffers,
}

pub(crate) async fn run(settings: HistorySettings, progress: &Progress) -> Result<Measured, Error> {
    settings.own_only.check("history")?;
    let large = Seed {
        events: settings.events,
        conversations: settings.conversations,
        members: CONVERSATION_MEMBERS,
        text: TEXT_CHARS,
    };
    let places = &settings.places;
    if settings.prepare {
        let prebuilt = prebuilt::prepare_only(places, large, progress).await?;
        return Measured::new("history", &settings, &prebuilt, prebuilt.rows());
    }
    let history = measure(places, large, &calls::ALL_CALLS, settings.asking, progress).await?;
    let rows = history.rows();
    Measured::new("history", &settings, &history, rows)
}

/// What `ratios` compares: pages of messages at so many events and at 10,000.
pub(crate) async fn pages(
    places: &Places,
    events: u64,
    asking: Asking,
    progress: &Progress,
) -> Result<History, Error> {
    let large = Seed {
        events,
        conversations: events / 100,
        members: CONVERSATION_MEMBERS,
        text: TEXT_CHARS,
    };
    measure(places, large, &calls::PAGE_CALLS, asking, progress).await
}

/// Asks a large and a small installation in turn, so that what else the machine does hits both.
async fn measure(
    places: &Places,
    large: Seed,
    calls: &[Call],
    asking: Asking,
    progress: &Progress,
) -> Result<History, Error> {
    let (servers, _took) = prepare(places, large, progress).await?;
    let mut large = Installation::over(servers, large).await?;
    progress.say("starting a small installation");
    let mut small = Installation::passing(places, SMALL_SEED).await?;
    progress.say("reading everything once");
    large.warm().await?;
    let mut compared = Vec::new();
    for call in calls {
        progress.say(call.name());
        compared.push(compare(*call, &mut large, &mut small, asking).await?);
    }
    let history = History {
        large: large.seed,
        small: small.seed,
        calls: compared,
        large_buffers: buffers::of(&large).await?,
        small_buffers: buffers::of(&small).await?,
    };
    small.stop().await?;
    large.stop().await?;
    Ok(history)
}

async fn compare(
    call: Call,
    large: &mut Installation,
    small: &mut Installation,
    asking: Asking,
) -> Result<Compared, Error> {
    let (mut of_large, mut of_small) = (Series::default(), Series::default());
    for round in 0..=asking.rounds {
        for (series, installation) in [(&mut of_large, &mut *large), (&mut of_small, &mut *small)] {
            series.round(call, installation, asking).await?;
            // The first one finds connections, statements and indexes cold.
            if round == 0 {
                *series = Series::default();
            }
        }
    }
    let (large, small) = (of_large.answers(), of_small.answers());
    Ok(Compared {
        call,
        ratio: large.latency.p50 / small.latency.p50.max(f64::MIN_POSITIVE),
        large,
        small,
    })
}

/// The rounds of one installation.
#[derive(Debug, Default)]
struct Series {
    taken: Latencies,
    calls: f64,
    items: f64,
    postgres: f64,
}

impl Series {
    /// A round of calls at their times.
    async fn round(
        &mut self,
        call: Call,
        installation: &mut Installation,
        how: Asking,
    ) -> Result<(), Error> {
        let lasting = Duration::try_from_secs_f64(how.round_seconds)
            .map_err(|error| Error::Failed(format!("--round-seconds: {error}")))?;
        let before = installation.stack.usage()?.postgres;
        let pace = Pace::new(Instant::now(), how.call_rate, 0, 1);
        let end = pace.at(0) + lasting;
        let mut asking = JoinSet::new();
        for intended in (0..).map(|n| pace.at(n)).take_while(|at| *at < end) {
            let asked = call.of(installation)?;
            sleep_until(intended).await;
            if asking.len() >= MAX_PENDING_CALLS
                && let Some(ended) = asking.join_next().await
            {
                self.take(ended.map_err(Error::panicked)?)?;
            }
            let late = move |_| Error::Timeout {
                what: call.name().to_owned(),
                within: CALL_TIMEOUT,
            };
            asking.spawn(async move {
                let items = tokio::time::timeout(CALL_TIMEOUT, asked.ask())
                    .await
                    .map_err(late)??;
                Ok((items, intended.elapsed()))
            });
        }
        while let Some(ended) = asking.join_next().await {
            self.take(ended.map_err(Error::panicked)?)?;
        }
        self.postgres += installation.stack.usage()?.postgres - before;
        Ok(())
    }

    fn take(&mut self, answered: Result<(usize, Duration), Error>) -> Result<(), Error> {
        let (items, took) = answered?;
        self.taken.record(took);
        self.calls += 1.0;
        self.items += items as f64;
        Ok(())
    }

    fn answers(&self) -> Answers {
        let calls = self.calls.max(1.0);
        Answers {
            latency: self.taken.take(),
            items: self.items / calls,
            postgres_micros: self.postgres * 1e6 / calls,
        }
    }
}

impl History {
    /// The median time of a page of messages at the large size, divided by that at the small one: over the kinds of pages.
    pub(crate) fn page_ratio(&self) -> f64 {
        let pages = || {
            self.calls
                .iter()
                .filter(|one| calls::PAGE_CALLS.contains(&one.call))
        };
        let large: f64 = pages().map(|one| one.large.latency.p50).sum();
        let small: f64 = pages().map(|one| one.small.latency.p50).sum();
        large / small.max(f64::MIN_POSITIVE)
    }

    fn rows(&self) -> Vec<(String, String)> {
        let side = |answers: &Answers| {
            let latency = &answers.latency;
            format!(
                "p50 {:.2}, p99 {:.2} ms, {:.0} us of Postgres, {:.0} items",
                latency.p50, latency.p99, answers.postgres_micros, answers.items
            )
        };
        let (large, small) = (self.large.events, self.small.events);
        let mut rows: Vec<_> = self
            .calls
            .iter()
            .map(|one| {
                let value = format!(
                    "{large} events: {}\n{small} events: {}\nratio {:.2}",
                    side(&one.large),
                    side(&one.small),
                    one.ratio
                );
                row(one.call.name(), value)
            })
            .collect();
        let touched = |of: &Buffers| {
            format!(
                "{:.0} blocks, {:.0} of them not in Postgres' own memory",
                of.blocks, of.read
            )
        };
        rows.push(row(
            "pages, by their medians",
            format!("ratio {:.2}", self.page_ratio()),
        ));
        rows.push(row(
            "a page of messages touches",
            format!(
                "{large} events: {}\n{small} events: {}",
                touched(&self.large_buffers),
                touched(&self.small_buffers)
            ),
        ));
        rows
    }
}
