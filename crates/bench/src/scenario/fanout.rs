//! `fanout`: one conversation whose members are all connected, and what each message to it takes until all have it.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Error;
use crate::limits::baseline;
use crate::load::Latency;
use crate::output::{Measured, Progress, row};
use crate::processes::{self, Usage};
use crate::stack::Places;
use crate::target::{Target, Which};

mod audience;
mod baseline_delta;

pub(crate) use audience::Audience;
pub(crate) use baseline_delta::{SendsDelta, sends_delta};

/// Sends messages to one conversation of many connected members.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) target: Which,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: FanoutLoad,
    /// Baseline servers, one for each gateway, write the same frames to as many sockets, in turn with confab.
    #[arg(long, env = "CONFAB_BENCH_BARE")]
    pub(crate) bare: bool,
    /// Small conversations are sent to as well, at this rate, without the load and with it.
    #[arg(long, env = "CONFAB_BENCH_SENDS_BESIDE")]
    pub(crate) sends_beside: Option<f64>,
}

/// What is sent.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FanoutLoad {
    /// Members, each with a connection, spread over the gateways.
    #[arg(long, env = "CONFAB_BENCH_MEMBERS", default_value_t = 5000)]
    pub(crate) members: usize,
    /// Messages a second, at times that do not wait for anything.
    #[arg(long, env = "CONFAB_BENCH_RATE", default_value_t = 10.0)]
    pub(crate) rate: f64,
    /// As many as keep the sockets busy, in place of a rate: the next when the events of an earlier one are everywhere.
    #[arg(long, env = "CONFAB_BENCH_MAX")]
    pub(crate) max: bool,
    /// Messages that are on the way at most, when as many are sent as are taken.
    #[arg(long, env = "CONFAB_BENCH_IN_FLIGHT", default_value_t = 16)]
    pub(crate) in_flight: usize,
    /// Characters of each message's text.
    #[arg(long, env = "CONFAB_BENCH_TEXT", default_value_t = 200)]
    pub(crate) text: usize,
    /// Seconds of load before it is measured.
    #[arg(long, env = "CONFAB_BENCH_WARM_UP", default_value_t = 2)]
    pub(crate) warm_up: u64,
    /// Seconds that are measured.
    #[arg(long, env = "CONFAB_BENCH_SECONDS", default_value_t = 10)]
    pub(crate) seconds: u64,
}

impl Default for FanoutLoad {
    fn default() -> Self {
        Self {
            members: 5000,
            rate: 10.0,
            max: false,
            in_flight: 16,
            text: 200,
            warm_up: 2,
            seconds: 10,
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FanoutOutcome {
    /// Events heard a second, by all connections together.
    pub(crate) frames: f64,
    /// From the intended time of a send to its event at a member, in milliseconds.
    pub(crate) heard: Latency,
    /// Messages that were refused.
    pub(crate) failed: u64,
    /// Processors' time of each frame, in microseconds by part; of bare servers, they stand for gateways.
    pub(crate) processor: Option<Usage>,
    /// Bytes in memory of the gateways' own, all together; of bare servers likewise.
    pub(crate) memory: Option<u64>,
}

/// A fan-out beside one of bare servers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Compared {
    /// Of confab.
    pub(crate) confab: FanoutOutcome,
    /// Of bare servers, as many as confab has gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bare: Option<FanoutOutcome>,
    /// Frames of confab : of bare servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// What becomes of other sends meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<SendsDelta>,
}

pub(crate) async fn run(args: FanoutArgs, progress: &Progress) -> Result<Measured, Error> {
    progress.say("starting a confab");
    let mut target = Target::start(&args.target).await?;
    let audience = Audience::of_confab(&target, &args.load, progress).await?;
    let mut compared = if args.bare {
        let baselines = baseline::start_all(&args.target.places, target.urls().len()).await?;
        let compared = compare(&mut target, &audience, &baselines, &args.load, progress).await?;
        baseline::stop_all(baselines).await?;
        compared
    } else {
        let confab = measure(&mut target, &audience, &args.load, progress).await?;
        Compared {
            confab,
            bare: None,
            ratio: None,
            beside: None,
        }
    };
    if let Some(rate) = args.sends_beside {
        let beside = sends_delta(&mut target, &audience, &args.load, rate, progress);
        compared.beside = Some(Box::pin(beside).await?);
    }
    drop(audience);
    target.stop().await?;
    let rows = compared.rows();
    Measured::new("fanout", &args, &compared, rows)
}

/// Puts the load on a confab.
pub(crate) async fn measure(
    target: &mut Target,
    audience: &Audience,
    load: &FanoutLoad,
    progress: &Progress,
) -> Result<FanoutOutcome, Error> {
    let mut used = || Ok((target.usage()?, gateways_memory(target)));
    watch(audience, load, &mut used, progress).await
}

/// Puts the load on a confab and on bare servers in turn, so that what else the machine does meets both.
pub(crate) async fn compare(
    target: &mut Target,
    confab: &Audience,
    baselines: &[baseline::Baseline],
    load: &FanoutLoad,
    progress: &Progress,
) -> Result<Compared, Error> {
    let event = confab.sample()?;
    let bare = Audience::of_baseline(baselines, load, &event, progress).await?;
    let mut measured = Vec::new();
    let turn = FanoutLoad {
        seconds: load.seconds.div_ceil(COMPARED_ROUNDS),
        ..load.clone()
    };
    for _ in 0..COMPARED_ROUNDS {
        let of_confab = measure(target, confab, &turn, progress).await?;
        let mut used = || Ok(baseline::usage(baselines));
        let of_baseline = watch(&bare, &turn, &mut used, progress).await?;
        measured.push((of_confab, of_baseline));
    }
    // The turn whose ratio is the middle one.
    let ratio = |(confab, bare): &(FanoutOutcome, FanoutOutcome)| confab.frames / bare.frames;
    measured.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let middle = measured.len() / 2;
    let Some((confab, bare)) = measured.into_iter().nth(middle) else {
        return Err(Error::Failed("nothing was compared".to_owned()));
    };
    Ok(Compared {
        ratio: Some(confab.frames / bare.frames),
        confab,
        bare: Some(bare),
        beside: None,
    })
}

/// Puts the load on a bare server that nothing is compared with; it writes this event.
pub(crate) async fn of_baseline(
    places: &Places,
    event: &Bytes,
    load: &FanoutLoad,
    progress: &Progress,
) -> Result<FanoutOutcome, Error> {
    progress.say("starting a bare server");
    let baselines = baseline::start_all(places, 1).await?;
    let audience = Audience::of_baseline(&baselines, load, event, progress).await?;
    let mut used = || Ok(baseline::usage(&baselines));
    let outcome = watch(&audience, load, &mut used, progress).await?;
    drop(audience);
    baseline::stop_all(baselines).await?;
    Ok(outcome)
}

/// How often confab and bare servers are measured in turn.
const COMPARED_ROUNDS: u64 = 3;

/// Bytes of all gateways, where they are the measurement's own.
fn gateways_memory(target: &Target) -> Option<u64> {
    let Target::Own(stack) = target else {
        return None;
    };
    let pids = stack.gateways.iter().map(|one| one.process().id());
    Some(pids.map(processes::memory).sum())
}

/// What the processes have used, and what they hold.
type Used<'a> = dyn FnMut() -> Result<(Option<Usage>, Option<u64>), Error> + Send + 'a;

/// Measures what comes for as long as the load says.
async fn watch(
    audience: &Audience,
    load: &FanoutLoad,
    used: &mut Used<'_>,
    progress: &Progress,
) -> Result<FanoutOutcome, Error> {
    let mut speaking = audience.speak(load);
    sleep(Duration::from_secs(load.warm_up)).await;
    let ((before, _), began) = (used()?, Instant::now());
    let arrivals = audience.arrivals();
    arrivals.latencies.take();
    for second in 0..=load.seconds {
        sleep_until(began + Duration::from_secs(second)).await;
        if let Some(ended) = speaking.try_join_next() {
            ended.map_err(|error| Error::Failed(error.to_string()))??;
        }
        let so_far = arrivals.latencies.count() as f64 / began.elapsed().as_secs_f64();
        progress.say(format!(
            "{second} of {} s: {so_far:.0} frames/s",
            load.seconds
        ));
    }
    let heard = arrivals.latencies.take();
    let ((after, memory), seconds) = (used()?, began.elapsed().as_secs_f64());
    let used = before.zip(after).map(|(before, after)| after.since(before));
    speaking.shutdown().await;
    audience.check()?;
    Ok(FanoutOutcome {
        frames: heard.count as f64 / seconds,
        processor: used.map(|used| used.micros_each(heard.count as f64)),
        failed: arrivals
            .failed
            .swap(0, std::sync::atomic::Ordering::Relaxed),
        heard,
        memory,
    })
}

impl FanoutOutcome {
    fn rows(&self, whose: &str) -> Vec<(String, String)> {
        let mut rows = vec![
            row(
                format!("{whose}: frames"),
                format!("{:.0} a second", self.frames),
            ),
            row(format!("{whose}: until a member has it"), self.heard.text()),
            row(format!("{whose}: failed"), self.failed.to_string()),
        ];
        rows.extend(self.processor.map(|used| {
            row(
                format!("{whose}: processors' time of a frame"),
                format!(
                    "{:.2} us: gateways {:.2}, workers {:.2}, NATS {:.2}, Postgres {:.2}; the load {:.2} more",
                    used.service(), used.gateways, used.workers, used.nats, used.postgres, used.load
                ),
            )
        }));
        rows.extend(
            self.memory
                .map(|bytes| row(format!("{whose}: memory"), format!("{} MiB", bytes >> 20))),
        );
        rows
    }
}

impl Compared {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = self.confab.rows("confab");
        rows.extend(self.bare.iter().flat_map(|bare| bare.rows("bare servers")));
        rows.extend(
            self.ratio
                .map(|ratio| row("confab : bare servers", format!("{ratio:.2}"))),
        );
        rows.extend(self.beside.iter().flat_map(SendsDelta::rows));
        rows
    }
}
