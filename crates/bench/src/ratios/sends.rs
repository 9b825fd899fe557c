//! The ratios of sends: one confab, whose workers are exchanged for others, and loads that are compared in turn, so that what else the
//! machine does strikes both.

use std::collections::BTreeMap;

use super::Parts;
use crate::Error;
use crate::output::Progress;
use crate::scenario::send::{Prebuilt, SendLoad, SendOutcome};
use crate::stack::{Places, Stack, StackShape};
use crate::target::Target;

/// How often compared loads take turns.
const COMPARED_ROUNDS: usize = 2;
/// Runs at a pace, of which the median counts.
const RUNS_PER_RATE: usize = 5;

/// As many sends as are taken.
fn saturation() -> SendLoad {
    SendLoad {
        max: true,
        warm_up: 1,
        seconds: 3,
        ..SendLoad::default()
    }
}

/// Measures all ratios of sends.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    progress.say("sends: starting a confab");
    let stack = Stack::start(places, &StackShape::default()).await?;
    let mut target = Target::Own(Box::new(stack));
    let prebuilt = Prebuilt::new(&target, &saturation(), progress).await?;
    latency(&mut target, &prebuilt, parts, progress).await?;
    hot(&mut target, parts, progress).await?;
    one_connection(&mut target, parts, progress).await?;
    workers(&mut target, &prebuilt, parts, progress).await?;
    target.stop().await
}

/// Five runs at 1,000 sends a second.
async fn latency(
    target: &mut Target,
    prebuilt: &Prebuilt,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let load = SendLoad {
        warm_up: 1,
        seconds: 5,
        ..SendLoad::default()
    };
    let mut runs = Vec::new();
    for _ in 0..RUNS_PER_RATE {
        runs.push(prebuilt.put(target, &load, progress).await?);
    }
    let tail = |run: &SendOutcome| run.acknowledged.p99 / run.acknowledged.p50;
    runs.sort_by(|one, other| tail(one).total_cmp(&tail(other)));
    if let (Some(best), Some(median), Some(worst)) =
        (runs.first(), runs.get(RUNS_PER_RATE / 2), runs.last())
    {
        parts.put("medianRunP99Millis", median.acknowledged.p99);
        parts.put("medianRunP50Millis", median.acknowledged.p50);
        parts.put("bestRunTail", tail(best));
        parts.put("worstRunTail", tail(worst));
    }
    runs.sort_by(|one, other| one.acknowledged.p50.total_cmp(&other.acknowledged.p50));
    if let Some(median) = runs.get(RUNS_PER_RATE / 2) {
        parts.put("sendP50Millis", median.acknowledged.p50);
        parts.put("loadLateP50Millis", median.late.p50);
    }
    Ok(())
}

/// One conversation of all connections, and a thousand with the same members, so that each message has as many copies.
async fn hot(target: &mut Target, parts: &mut Parts, progress: &Progress) -> Result<(), Error> {
    let spread = SendLoad {
        connections: 16,
        members: 16,
        in_flight: 32,
        ..saturation()
    };
    let hot = SendLoad {
        conversations: 1,
        ..spread.clone()
    };
    compare(
        target,
        [("hotSends", hot), ("spreadSends", spread)],
        parts,
        progress,
    )
    .await
}

/// One connection with many sends on the way to one conversation, and as many connections with one each, to one of their own.
async fn one_connection(
    target: &mut Target,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let one = SendLoad {
        connections: 2,
        senders: Some(1),
        conversations: 1,
        in_flight: 16,
        ..saturation()
    };
    let sixteen = SendLoad {
        connections: 16,
        conversations: 16,
        in_flight: 1,
        ..saturation()
    };
    compare(
        target,
        [
            ("oneConnectionSends", one),
            ("sixteenConnectionsSends", sixteen),
        ],
        parts,
        progress,
    )
    .await
}

/// Puts two loads in turn.
async fn compare(
    target: &mut Target,
    loads: [(&'static str, SendLoad); 2],
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let mut prebuilt = Vec::new();
    for (part, load) in loads {
        let connected = Prebuilt::new(target, &load, progress).await?;
        prebuilt.push((part, load, connected));
    }
    let mut sends: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for _ in 0..COMPARED_ROUNDS {
        for (part, load, connected) in &prebuilt {
            let outcome = connected.put(target, load, progress).await?;
            sends.entry(part).or_default().push(outcome.sends);
        }
    }
    put_means(parts, &sends);
    Ok(())
}

/// Workers to put the same load on: how many, and what they are told.
struct Workers {
    part: &'static str,
    count: usize,
    env: &'static [(&'static str, &'static str)],
}

/// A worker that commits sixteen messages at a time is the limit; as it is shipped, the two processors are.
const LIMITED_ENV: &[(&str, &str)] = &[("CONFAB_COMMIT_LANES", "1"), ("CONFAB_BATCH_EVENTS", "16")];

const WORKER_SETUPS: [Workers; 5] = [
    Workers {
        part: "saturationSends",
        count: 1,
        env: &[],
    },
    Workers {
        part: "batchOfOneSends",
        count: 1,
        env: &[("CONFAB_BATCH_EVENTS", "1")],
    },
    Workers {
        part: "oneWorkerSends",
        count: 1,
        env: LIMITED_ENV,
    },
    Workers {
        part: "twoWorkersSends",
        count: 2,
        env: LIMITED_ENV,
    },
    Workers {
        part: "twoWorkersAsShippedSends",
        count: 2,
        env: &[],
    },
];

/// Sends at saturation, by these workers in turn.
async fn workers(
    target: &mut Target,
    prebuilt: &Prebuilt,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let mut sends: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut as_shipped = Vec::new();
    for _ in 0..COMPARED_ROUNDS {
        for workers in &WORKER_SETUPS {
            progress.say("exchanging the workers");
            exchange(target, workers).await?;
            let outcome = prebuilt.put(target, &saturation(), progress).await?;
            sends.entry(workers.part).or_default().push(outcome.sends);
            if workers.count == 1 && workers.env.is_empty() {
                as_shipped.push(outcome);
            }
        }
    }
    put_means(parts, &sends);
    put_costs(parts, &as_shipped);
    Ok(())
}

async fn exchange(target: &mut Target, workers: &Workers) -> Result<(), Error> {
    let Target::Own(stack) = target else {
        return Err(Error::Failed("the workers are not ours".to_owned()));
    };
    let env = workers.env.iter();
    let shape = StackShape {
        workers: workers.count,
        worker_env: env
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        ..StackShape::default()
    };
    stack.exchange_workers(&shape).await
}

fn put_means(parts: &mut Parts, of: &BTreeMap<&'static str, Vec<f64>>) {
    for (part, values) in of {
        parts.put(part, mean(values.iter().copied()));
    }
}

/// What a send takes of the processors, and how long.
fn put_costs(parts: &mut Parts, runs: &[SendOutcome]) {
    let used = || runs.iter().filter_map(|run| run.processor);
    parts.put("sendMicros", mean(used().map(|used| used.service())));
    parts.put("sendGatewaysMicros", mean(used().map(|used| used.gateways)));
    parts.put("sendWorkersMicros", mean(used().map(|used| used.workers)));
    parts.put("sendNatsMicros", mean(used().map(|used| used.nats)));
    parts.put("sendPostgresMicros", mean(used().map(|used| used.postgres)));
    let acknowledged = || runs.iter().map(|run| &run.acknowledged);
    parts.put(
        "saturationP50Millis",
        mean(acknowledged().map(|took| took.p50)),
    );
    parts.put(
        "saturationP99Millis",
        mean(acknowledged().map(|took| took.p99)),
    );
}

/// Not a number where there are none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}
