//! What the page shows of each scenario: columns of a table, and plots.

use std::collections::BTreeMap;

use serde_json::Value;

use super::plot::{Axis, Plot, Series};
use crate::Error;
use crate::load::Latency;
use crate::output::{Measured, number};

/// A scenario's part of the page.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) columns: Vec<&'static str>,
    pub(super) lines: Vec<Vec<String>>,
    pub(super) plots: Vec<Plot>,
}

/// A name, and where its number stands in what a scenario printed (RFC 6901).
type At = (&'static str, &'static str);

/// How a scenario is shown.
struct Shown {
    scenario: &'static str,
    title: &'static str,
    columns: &'static [At],
    plots: &'static [Drawn],
}

/// A plot.
struct Drawn {
    file: &'static str,
    title: &'static str,
    up: &'static str,
    lines: Lines,
}

/// Where its lines come from.
enum Lines {
    /// A point of each run.
    Runs {
        /// What a run must have been told, and what not, to be in it.
        only: (&'static str, bool),
        across: At,
        axis: Axis,
        up: &'static [At],
    },
    /// A line of each run: the percentiles of a latency.
    Percentiles {
        only: (&'static str, bool),
        of: &'static [At],
    },
}

const SHOWN: &[Shown] = &[Shown {
    scenario: "send",
    title: "Sends",
    columns: &[
        ("connections", "/settings/connections"),
        ("conversations", "/settings/conversations"),
        ("members", "/settings/members"),
        ("in flight a connection (`--max`)", "/settings/inFlight"),
        ("sends/s", "/measured/sends"),
        ("events/s", "/measured/events"),
        ("acknowledged p50, ms", "/measured/acknowledged/p50"),
        ("p99", "/measured/acknowledged/p99"),
        ("heard p50, ms", "/measured/heard/p50"),
        ("p99", "/measured/heard/p99"),
        ("µs a send: gateways", "/measured/processor/gateways"),
        ("workers", "/measured/processor/workers"),
        ("NATS", "/measured/processor/nats"),
        ("Postgres", "/measured/processor/postgres"),
    ],
    plots: &[
        Drawn {
            file: "send-latency.svg",
            title: "Sends at a rate: from the intended time on",
            up: "ms",
            lines: Lines::Percentiles {
                only: ("/settings/max", false),
                of: &[
                    ("acknowledged", "/measured/acknowledged"),
                    ("heard by a member", "/measured/heard"),
                ],
            },
        },
        Drawn {
            file: "send-rate.svg",
            title: "As many sends as are taken",
            up: "sends/s",
            lines: Lines::Runs {
                only: ("/settings/max", true),
                across: ("in flight on each connection", "/settings/inFlight"),
                axis: Axis::Doubling,
                up: &[("acknowledged", "/measured/sends")],
            },
        },
        Drawn {
            file: "send-saturation.svg",
            title: "As many sends as are taken: until acknowledged",
            up: "ms",
            lines: Lines::Runs {
                only: ("/settings/max", true),
                across: ("in flight on each connection", "/settings/inFlight"),
                axis: Axis::Doubling,
                up: &[
                    ("p50", "/measured/acknowledged/p50"),
                    ("p99", "/measured/acknowledged/p99"),
                ],
            },
        },
    ],
}];

/// Whether a scenario of this name is shown.
pub(super) fn is_known(scenario: &str) -> bool {
    SHOWN.iter().any(|shown| shown.scenario == scenario)
}

/// The sections of all scenarios that were measured.
pub(super) fn of(measured: &[Measured]) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::new();
    for shown in SHOWN {
        let runs = measured.iter().filter(|run| run.scenario == shown.scenario);
        let runs = runs.map(Run::of).collect::<Result<Vec<_>, _>>()?;
        if !runs.is_empty() {
            sections.push(shown.section(&runs)?);
        }
    }
    Ok(sections)
}

impl Shown {
    fn section(&self, runs: &[Run]) -> Result<Section, Error> {
        let line = |run: &Run| {
            let numbers = self
                .columns
                .iter()
                .map(|(_, at)| run.number(at).map(number));
            numbers.collect::<Result<Vec<_>, _>>()
        };
        let lines = runs.iter().map(line).collect::<Result<_, _>>()?;
        let plots = self.plots.iter().map(|drawn| drawn.plot(runs));
        let plots = plots.collect::<Result<Vec<_>, Error>>()?;
        Ok(Section {
            title: self.title,
            columns: self.columns.iter().map(|(name, _)| *name).collect(),
            lines,
            plots: plots.into_iter().flatten().collect(),
        })
    }
}

impl Drawn {
    /// `None` where no run is of the kind that it shows.
    fn plot(&self, runs: &[Run]) -> Result<Option<Plot>, Error> {
        let (across, axis, series) = match &self.lines {
            Lines::Runs {
                only,
                across,
                axis,
                up,
            } => (across.0, *axis, by_run(runs, only, across.1, up)?),
            Lines::Percentiles { only, of } => {
                ("percentile", Axis::Nines, by_percentile(runs, only, of)?)
            }
        };
        let is_empty = series.iter().all(|series| series.points.is_empty());
        Ok((!is_empty).then_some(Plot {
            file: self.file,
            title: self.title,
            across,
            up: self.up,
            axis,
            series,
        }))
    }
}

fn by_run(
    runs: &[Run],
    only: &(&str, bool),
    across: &str,
    up: &[At],
) -> Result<Vec<Series>, Error> {
    let line = |(name, at): &At| {
        let points = runs.iter().filter(|run| run.is(only));
        let points = points.map(|run| Ok((run.number(across)?, run.number(at)?)));
        let mut points = points.collect::<Result<Vec<_>, Error>>()?;
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let name = (*name).to_owned();
        Ok(Series { name, points })
    };
    up.iter().map(line).collect()
}

fn by_percentile(runs: &[Run], only: &(&str, bool), of: &[At]) -> Result<Vec<Series>, Error> {
    let mut series = BTreeMap::new();
    for run in runs.iter().filter(|run| run.is(only)) {
        for (place, (name, at)) in of.iter().enumerate() {
            let points = run.latency(at)?.curve;
            // Of several runs of a kind the last is shown: a curve is an example, the table has them all.
            let name = (*name).to_owned();
            series.insert(place, Series { name, points });
        }
    }
    Ok(series.into_values().collect())
}

/// What a scenario printed, by pointers.
struct Run {
    scenario: String,
    value: Value,
}

impl Run {
    fn of(measured: &Measured) -> Result<Self, Error> {
        Ok(Self {
            scenario: measured.scenario.to_string(),
            value: serde_json::to_value(measured)?,
        })
    }

    fn number(&self, at: &str) -> Result<f64, Error> {
        let number = self.value.pointer(at).and_then(Value::as_f64);
        number.ok_or_else(|| Error::Failed(format!("{}: no number at {at}", self.scenario)))
    }

    fn is(&self, (at, wanted): &(&str, bool)) -> bool {
        self.value.pointer(at).and_then(Value::as_bool) == Some(*wanted)
    }

    fn latency(&self, at: &str) -> Result<Latency, Error> {
        let latency = self.value.pointer(at).cloned().unwrap_or_default();
        let latency = serde_json::from_value(latency);
        latency.map_err(|error| {
            Error::Failed(format!("{}: no latencies at {at}: {error}", self.scenario))
        })
    }
}
