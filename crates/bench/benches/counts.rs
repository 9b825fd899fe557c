//! How many instructions what is hot takes, counted by callgrind: `make bench-counts`. The same on a busy machine as on an idle
//! one, so that two commits can be compared.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

#[path = "hot/cases.rs"]
mod cases;

use cases::{Case, HOT_CASES, Hot};

/// Runs before the first that counts: queues and windows are as full as they become.
const WARM_UP_RUNS: u64 = 50;
/// Runs that are counted together.
const COUNTED_RUNS: u64 = 20;

/// Counts the instructions of what is hot.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the counts are written as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Earlier counts, to compare with.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Only cases whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Runs one case, for callgrind to look at.
    #[arg(long, hide = true)]
    run: Option<usize>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    /// Instructions of one run.
    instructions: u64,
    /// Of what it is about, a run does so many.
    units: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(number) = arguments.run {
        return run(HOT_CASES.get(number).ok_or("there is no such case")?);
    }
    let base = arguments.base.as_deref().map(read).transpose()?;
    let mut counts = BTreeMap::new();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "instructions", "for each", "before", "change"]);
    for (number, case) in HOT_CASES.iter().enumerate() {
        if case.name.contains(&arguments.only) {
            let counted = count(number, case)?;
            let before = base.as_ref().and_then(|base| base.get(case.name));
            table.add_row(row(case.name, &counted, before));
            counts.insert(case.name.to_owned(), counted);
        }
    }
    for column in 1..=4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(out) = &arguments.out {
        std::fs::write(out, serde_json::to_vec_pretty(&counts)?)?;
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}

fn read(path: &Path) -> Result<BTreeMap<String, Counted>, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn row(name: &str, counted: &Counted, before: Option<&Counted>) -> [String; 5] {
    let each = counted.instructions as f64 / f64::from(counted.units);
    let change = |before: &Counted| {
        let ratio = counted.instructions as f64 / before.instructions as f64;
        format!("{:+.1} %", (ratio - 1.0) * 100.0)
    };
    [
        name.to_owned(),
        counted.instructions.to_string(),
        format!("{each:.0}"),
        before.map_or_else(String::new, |before| before.instructions.to_string()),
        before.map_or_else(String::new, change),
    ]
}

/// Runs a case in a process of its own under callgrind, which looks at nothing but [`counted_run`].
fn count(number: usize, case: &Case) -> Result<Counted, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let found = folder.path().join("callgrind.out");
    let mut to: OsString = "--callgrind-out-file=".into();
    to.push(&found);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args([
            "--tool=callgrind",
            "--quiet",
            "--toggle-collect=*counted_run*",
        ])
        .arg(to)
        .arg(std::env::current_exe()?)
        .args(["--run", &number.to_string()])
        .stdin(Stdio::null());
    let status = valgrind.status().map_err(|error| {
        format!("valgrind cannot be started ({error}): install your distribution's valgrind")
    })?;
    if !status.success() {
        return Err(format!("{}: {status}", case.name).into());
    }
    let text = std::fs::read_to_string(&found)?;
    Ok(Counted {
        instructions: total(&text).ok_or("callgrind counted nothing")? / COUNTED_RUNS,
        units: case.units,
    })
}

/// The sum that callgrind's file ends with.
fn total(text: &str) -> Option<u64> {
    let mut lines = text.lines().rev();
    let total = lines.find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok()
}

fn run(case: &Case) -> Result<(), Box<dyn Error>> {
    let mut hot = (case.prepare)(case.units)?;
    let stage = |hot: &mut dyn Hot| {
        if case.staged {
            hot.stage();
        }
    };
    for _ in 0..WARM_UP_RUNS {
        stage(&mut *hot);
        hot.run();
    }
    for _ in 0..COUNTED_RUNS {
        stage(&mut *hot);
        counted_run(&mut *hot);
    }
    Ok(())
}

/// What callgrind knows by its name.
#[inline(never)]
fn counted_run(hot: &mut dyn Hot) {
    hot.run();
}
