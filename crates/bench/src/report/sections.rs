//! What the page shows of each scenario: columns of a table, and plots.

use serde_json::{Value, json};

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
    /// Where a list stands of which each item is a line of the table.
    each: Option<&'static str>,
    columns: &'static [At],
    /// Columns of what only some runs measure.
    more: &'static [At],
    plots: &'static [Drawn],
}

/// A plot.
struct Drawn {
    file: &'static str,
    title: &'static str,
    up: &'static str,
    /// What a run must have been told to be in it.
    only: Option<(&'static str, SettingValue)>,
    lines: Lines,
}

/// A setting's value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SettingValue {
    Flag(bool),
    Number(f64),
}

/// Where its lines come from.
enum Lines {
    /// A point of each run.
    Runs {
        across: At,
        axis: Axis,
        up: &'static [At],
    },
    /// The percentiles of latencies.
    Percentiles(&'static [At]),
}

mod shown;

use shown::SECTION_TABLE;

/// Whether a scenario of this name is shown.
pub(super) fn is_known(scenario: &str) -> bool {
    SECTION_TABLE.iter().any(|shown| shown.scenario == scenario)
}

/// The sections of all scenarios that were measured.
pub(super) fn of(measured: &[Measured]) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::new();
    for shown in SECTION_TABLE {
        let runs = measured.iter().filter(|run| run.scenario == shown.scenario);
        let runs = runs.map(|run| Run::of(run, shown.each));
        let runs = runs.collect::<Result<Vec<_>, _>>()?.concat();
        if !runs.is_empty() {
            sections.push(shown.section(&runs)?);
        }
    }
    Ok(sections)
}

impl Shown {
    fn section(&self, runs: &[Run]) -> Result<Section, Error> {
        let line = |run: &Run| {
            let cells = self.columns.iter().map(|(_, at)| run.cell(at));
            let more = self.more.iter().map(|(_, at)| run.cell(at));
            let more = more.map(|cell| Ok(cell.unwrap_or_else(|_absent| "–".to_owned())));
            cells.chain(more).collect::<Result<Vec<_>, Error>>()
        };
        let lines = runs.iter().map(line).collect::<Result<_, _>>()?;
        let plots = self.plots.iter().map(|drawn| drawn.plot(runs));
        let plots = plots.collect::<Result<Vec<_>, Error>>()?;
        let columns = self.columns.iter().chain(self.more);
        Ok(Section {
            title: self.title,
            columns: columns.map(|(name, _)| *name).collect(),
            lines,
            plots: plots.into_iter().flatten().collect(),
        })
    }
}

impl Drawn {
    /// `None` where no run is of the kind that it shows.
    fn plot(&self, runs: &[Run]) -> Result<Option<Plot>, Error> {
        let is_in = |run: &&Run| self.only.is_none_or(|only| run.is(only));
        let runs: Vec<&Run> = runs.iter().filter(is_in).collect();
        let (across, axis, series) = match &self.lines {
            Lines::Runs { across, axis, up } => (across.0, *axis, by_run(&runs, across.1, up)?),
            Lines::Percentiles(of) => ("percentile", Axis::Nines, by_percentile(&runs, of)?),
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

/// Runs that did not measure something have no point on its line.
fn by_run(runs: &[&Run], across: &str, up: &[At]) -> Result<Vec<Series>, Error> {
    let line = |(name, at): &At| {
        let points = runs.iter().filter(|run| run.number(at).is_ok());
        let points = points.map(|run| Ok((run.number(across)?, run.number(at)?)));
        let mut points = points.collect::<Result<Vec<_>, Error>>()?;
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let name = (*name).to_owned();
        Ok(Series { name, points })
    };
    let lines = up.iter().map(line).collect::<Result<Vec<_>, Error>>()?;
    let are_drawn = lines.into_iter().filter(|line| !line.points.is_empty());
    Ok(are_drawn.collect())
}

/// Of several runs the last is shown: a curve is an example, the table has them all.
fn by_percentile(runs: &[&Run], of: &[At]) -> Result<Vec<Series>, Error> {
    let lines = of
        .iter()
        .flat_map(|line| runs.last().map(|run| (line, run)));
    let lines = lines.map(|((name, at), run)| {
        Ok(Series {
            name: (*name).to_owned(),
            points: run.latency(at)?.curve,
        })
    });
    lines.collect()
}

/// What a scenario printed, by pointers.
#[derive(Debug, Clone)]
struct Run {
    scenario: String,
    value: Value,
}

impl Run {
    /// One, or one of each item of a list.
    fn of(measured: &Measured, each: Option<&str>) -> Result<Vec<Self>, Error> {
        let scenario = measured.scenario.to_string();
        let whole = Self {
            scenario: scenario.clone(),
            value: serde_json::to_value(measured)?,
        };
        let Some(each) = each else {
            return Ok(vec![whole]);
        };
        let items = whole.value.pointer(each).and_then(Value::as_array);
        let items = items.ok_or_else(|| Error::Failed(format!("{scenario}: no list at {each}")))?;
        let item = |item: &Value| Self {
            scenario: scenario.clone(),
            value: json!({ "settings": measured.settings, "measured": item }),
        };
        Ok(items.iter().map(item).collect())
    }

    /// A name or a number.
    fn cell(&self, at: &str) -> Result<String, Error> {
        match self.value.pointer(at).and_then(Value::as_str) {
            Some(name) => Ok(name.to_owned()),
            None => self.number(at).map(number),
        }
    }

    fn number(&self, at: &str) -> Result<f64, Error> {
        let number = self.value.pointer(at).and_then(Value::as_f64);
        number.ok_or_else(|| Error::Failed(format!("{}: no number at {at}", self.scenario)))
    }

    fn is(&self, (at, wanted): (&str, SettingValue)) -> bool {
        let told = self.value.pointer(at);
        match wanted {
            SettingValue::Flag(flag) => told.and_then(Value::as_bool) == Some(flag),
            SettingValue::Number(number) => told.and_then(Value::as_f64) == Some(number),
        }
    }

    fn latency(&self, at: &str) -> Result<Latency, Error> {
        let latency = self.value.pointer(at).cloned().unwrap_or_default();
        let latency = serde_json::from_value(latency);
        latency.map_err(|error| {
            Error::Failed(format!("{}: no latencies at {at}: {error}", self.scenario))
        })
    }
}
