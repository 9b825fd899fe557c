//! The scenarios by name.

use std::io::Write as _;

use crate::Error;
use crate::limits;
use crate::output::{Measured, Progress};
use crate::scenario::{history, send};

/// Measure confab, and its parts beside it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    scenario: Scenario,
    /// Print what was measured as JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
    Send(send::Args),
    Limits(limits::LimitsSettings),
    History(history::HistorySettings),
}

/// Runs a scenario, and prints what was measured.
///
/// # Errors
/// When something did not start, broke under the load, or did not come in time.
pub async fn run(args: Args) -> Result<(), Error> {
    let progress = Progress::new();
    let measured = match args.scenario {
        Scenario::Send(args) => Box::pin(send::run(args, &progress)).await?,
        Scenario::History(settings) => Box::pin(history::run(settings, &progress)).await?,
        Scenario::Limits(settings) => Box::pin(limits::run(settings, &progress)).await?,
    };
    drop(progress);
    print(&measured, args.json)
}

fn print(measured: &Measured, json: bool) -> Result<(), Error> {
    let text = if json {
        serde_json::to_string_pretty(measured)?
    } else {
        measured.table()
    };
    writeln!(std::io::stdout().lock(), "{text}").map_err(Error::io("print"))
}
