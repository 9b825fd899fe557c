//! How a measurement tells what it does, and what came of it.

use std::borrow::Cow;
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// What a scenario found: its numbers for programs, and a table for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    /// Which scenario.
    pub(crate) scenario: Cow<'static, str>,
    /// `release`, or `debug`, whose numbers say nothing.
    pub(crate) build: Cow<'static, str>,
    /// Processors that everything shares.
    pub(crate) processors: usize,
    /// What was asked for.
    pub(crate) settings: Value,
    /// What was found.
    pub(crate) measured: Value,
    /// The rows of the table: what, and its value.
    #[serde(skip)]
    pub(crate) rows: Vec<(String, String)>,
}

impl Measured {
    pub(crate) fn new(
        scenario: &'static str,
        settings: &impl Serialize,
        measured: &impl Serialize,
        rows: Vec<(String, String)>,
    ) -> Result<Self, Error> {
        Ok(Self {
            scenario: scenario.into(),
            build: build().into(),
            processors: processors(),
            settings: serde_json::to_value(settings)?,
            measured: serde_json::to_value(measured)?,
            rows,
        })
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([&*self.scenario, ""]);
        for (what, value) in &self.rows {
            table.add_row([what, value]);
        }
        table.to_string()
    }
}

/// How this program was built.
pub(crate) const fn build() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

/// Processors that this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// A number as people read it.
pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// An error with all that it came from.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |all, source| format!("{all}: {source}"))
}

/// A row of a table.
pub(crate) fn row(what: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (what.into(), value.into())
}

/// A line on standard error that says what goes on; nothing where that is no terminal.
#[derive(Debug, Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What goes on now.
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
