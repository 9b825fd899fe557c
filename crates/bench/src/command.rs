//! The scenarios by name.

use std::io::Write as _;

use crate::Error;
use crate::limits::{self, baseline};
use crate::output::{Measured, Progress};
use crate::processes::raise_descriptors;
use crate::ratios;
use crate::report;
use crate::scenario::fanout;
use crate::scenario::history;
use crate::scenario::idle;
use crate::scenario::neighbours;
use crate::scenario::resume;
use crate::scenario::send;

/// Measure confab, and its parts beside it.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
    /// Print what was measured as JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
    Send(Box<send::SendArgs>),
    Fanout(Box<fanout::FanoutArgs>),
    Idle(Box<idle::IdleArgs>),
    Resume(Box<resume::ResumeArgs>),
    Neighbours(Box<neighbours::NeighboursArgs>),
    Limits(limits::LimitsSettings),
    History(history::HistorySettings),
    Ratios(ratios::RatiosArgs),
    Report(report::ReportArgs),
    /// The bare server of the measurements beside confab.
    #[command(hide = true)]
    Bare(baseline::BaselineSettings),
}

/// Runs a scenario, and prints what was measured.
///
/// # Errors
/// When something did not start, broke under the load, or did not come in time.
pub async fn run(args: BenchArgs) -> Result<(), Error> {
    raise_descriptors();
    let json = args.json;
    let progress = Progress::new();
    let measured = match args.scenario {
        Scenario::History(settings) => Box::pin(history::run(settings, &progress)).await?,
        Scenario::Send(args) => Box::pin(send::run(*args, &progress)).await?,
        Scenario::Fanout(args) => Box::pin(fanout::run(*args, &progress)).await?,
        Scenario::Idle(args) => Box::pin(idle::run(*args, &progress)).await?,
        Scenario::Resume(args) => Box::pin(resume::run(*args, &progress)).await?,
        Scenario::Neighbours(args) => Box::pin(neighbours::run(*args, &progress)).await?,
        Scenario::Limits(settings) => Box::pin(limits::run(settings, &progress)).await?,
        Scenario::Ratios(args) => return Box::pin(ratios::run(args, json, progress)).await,
        Scenario::Report(args) => return report::run(&args),
        Scenario::Bare(settings) => return baseline::serve(settings).await,
    };
    drop(progress);
    print(&measured, json)
}

fn print(measured: &Measured, json: bool) -> Result<(), Error> {
    let text = if json {
        serde_json::to_string_pretty(measured)?
    } else {
        measured.table()
    };
    writeln!(std::io::stdout().lock(), "{text}").map_err(Error::io("print"))
}
