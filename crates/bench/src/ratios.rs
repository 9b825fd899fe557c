//! `ratios`: what confab does, over what its parts do on the same machine in the same run.

use std::io::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::Error;
use crate::output::{self, Progress};
use crate::stack::Places;
use crate::target::OwnOnly;

mod alone;
mod fanout;
mod idle;
mod pages;
mod resume;
mod sends;
mod table;

pub(crate) use table::{Parts, RATIO_ROWS, Ratio, RatioRow};

/// How long all of it may take.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(8 * 60);

/// Measures all ratios, in one run of at most eight minutes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RatiosArgs {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    own_only: OwnOnly,
    /// Ratios to measure, by name, in place of all.
    #[arg(long, env = "CONFAB_BENCH_ONLY", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
}

fn names() -> clap::builder::PossibleValuesParser {
    RATIO_ROWS
        .iter()
        .map(|row| row.name)
        .collect::<Vec<_>>()
        .into()
}

/// All ratios of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ratios {
    pub(crate) ratios: Vec<Ratio>,
    /// Those that were to be measured and were not, each with the reason.
    pub(crate) missing: Vec<Missing>,
    /// `release`, or `debug`, whose numbers say nothing.
    pub(crate) build: String,
    pub(crate) processors: usize,
    /// How long the run took.
    pub(crate) seconds: f64,
}

/// A ratio that could not be formed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// Measurements that are made together, and the ratios that need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Alone,
    Sends,
    FanOut,
    Idle,
    Resume,
    Pages,
}

impl Group {
    const ALL_GROUPS: [Self; 6] = [
        Self::Alone,
        Self::Sends,
        Self::FanOut,
        Self::Idle,
        Self::Resume,
        Self::Pages,
    ];

    const fn ratios(self) -> &'static [&'static str] {
        match self {
            Self::Alone => &["efficiency", "latencyMedian"],
            Self::FanOut => &["fanOut", "latencyBesideFanOut"],
            Self::Idle => &["idleMemory"],
            Self::Resume => &["resumeCost", "resumeRate"],
            Self::Pages => &["pageTime"],
            Self::Sends => &[
                "efficiency",
                "groupCommit",
                "latencyMedian",
                "latencyTail",
                "workers",
                "hotConversation",
                "oneConnection",
            ],
        }
    }

    async fn measure(
        self,
        places: &Places,
        parts: &mut Parts,
        progress: &Progress,
    ) -> Result<(), Error> {
        match self {
            Self::Alone => Box::pin(alone::measure(places, parts, progress)).await,
            Self::Sends => Box::pin(sends::measure(places, parts, progress)).await,
            Self::FanOut => Box::pin(fanout::measure(places, parts, progress)).await,
            Self::Idle => Box::pin(idle::measure(places, parts, progress)).await,
            Self::Pages => Box::pin(pages::measure(places, parts, progress)).await,
            Self::Resume => Box::pin(resume::measure(places, parts, progress)).await,
        }
    }
}

/// Measures, prints what came of it, and fails where a ratio could not be formed.
pub(crate) async fn run(args: RatiosArgs, json: bool, progress: Progress) -> Result<(), Error> {
    args.own_only.check("ratios")?;
    let (began, mut parts, mut broken) = (Instant::now(), Parts::default(), Vec::new());
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|one| one == name);
    for group in Group::ALL_GROUPS {
        if !group.ratios().iter().any(|name| wanted(name)) {
            continue;
        }
        let measured = group.measure(&args.places, &mut parts, &progress);
        let why = match timeout_at(began + MEASURE_TIMEOUT, measured).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => output::chain(&error),
            Err(_late) => format!("not done within {MEASURE_TIMEOUT:?} of the run's beginning"),
        };
        broken.push((group, why));
    }
    drop(progress);
    let rows = RATIO_ROWS.iter().filter(|row| wanted(row.name));
    let ratios = form(rows, &parts, &broken, began.elapsed());
    print(&ratios, json)?;
    match ratios.missing.len() {
        0 => Ok(()),
        missing => Err(Error::Failed(format!("{missing} ratios were not measured"))),
    }
}

fn form<'a>(
    rows: impl Iterator<Item = &'a RatioRow>,
    parts: &Parts,
    broken: &[(Group, String)],
    took: Duration,
) -> Ratios {
    let (mut ratios, mut missing) = (Vec::new(), Vec::new());
    for row in rows {
        match row.form(parts) {
            Ok(ratio) => ratios.push(ratio),
            Err(error) => {
                let of = broken
                    .iter()
                    .filter(|(group, _)| group.ratios().contains(&row.name));
                let why = of.fold(error.to_string(), |all, (_, why)| format!("{all}; {why}"));
                let name = row.name.to_owned();
                missing.push(Missing { name, why });
            }
        }
    }
    Ratios {
        ratios,
        missing,
        build: output::build().to_owned(),
        processors: output::processors(),
        seconds: took.as_secs_f64(),
    }
}

fn print(ratios: &Ratios, json: bool) -> Result<(), Error> {
    let text = if json {
        serde_json::to_string_pretty(ratios)?
    } else {
        ratios.table()
    };
    writeln!(std::io::stdout().lock(), "{text}").map_err(Error::io("print"))
}

impl Ratios {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["ratio", "value", "goal", "met", "parts"]);
        for ratio in &self.ratios {
            let row = RatioRow::named(&ratio.name);
            let parts = ratio.parts.iter();
            let parts = parts.map(|(part, value)| format!("{part} {}", output::number(*value)));
            table.add_row([
                ratio.name.clone(),
                format!("{:.2}", ratio.value),
                row.map_or_else(|| ratio.goal.text(), RatioRow::goal_text),
                if ratio.met { "yes" } else { "no" }.to_owned(),
                parts.collect::<Vec<_>>().join("\n"),
            ]);
        }
        for missing in &self.missing {
            let why = missing.why.clone();
            table.add_row([&missing.name, "-", "", "no", &why]);
        }
        format!(
            "{table}\n{} build, {} processors, {:.0} s",
            self.build, self.processors, self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_is_measured_by_a_group() {
        let by = |name| {
            Group::ALL_GROUPS
                .iter()
                .any(|group| group.ratios().contains(&name))
        };
        for row in RATIO_ROWS {
            assert!(by(row.name), "{}", row.name);
        }
        let named = Group::ALL_GROUPS.iter().flat_map(|group| group.ratios());
        for name in named {
            assert!(RatioRow::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn unmeasured_ratio_is_named_with_reason() {
        let broken = [(Group::Sends, "Postgres died".to_owned())];
        let rows = ["workers", "fanOut"].map(|name| RatioRow::named(name).unwrap());
        let ratios = form(rows.into_iter(), &Parts::default(), &broken, Duration::ZERO);
        assert!(ratios.ratios.is_empty());
        let why: Vec<_> = ratios.missing.iter().map(|one| one.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "twoWorkersSends was not measured; Postgres died",
                "fanOutFrames was not measured"
            ]
        );
    }
}
