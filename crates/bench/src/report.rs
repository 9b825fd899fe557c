//! `report`: the page and its plots, from what was measured.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::output::Measured;
use crate::ratios::Ratios;

mod page;
mod plot;
mod sections;

/// Writes what was measured into docs/performance.md, with plots beside it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReportArgs {
    /// What scenarios printed with --json, a file each.
    files: Vec<PathBuf>,
    /// What `confab bench ratios --json` printed.
    #[arg(long)]
    ratios: Option<PathBuf>,
    /// The folder of performance.md; plots go to performance/ in it. Of the page only what stands between its two marks is written.
    #[arg(long, default_value = "docs")]
    output: PathBuf,
}

/// Writes the page and the plots.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Error> {
    let ratios = args.ratios.as_deref().map(read_ratios).transpose()?;
    let measured = args.files.iter().map(|file| read(file));
    let measured = measured.collect::<Result<Vec<_>, _>>()?;
    let sections = sections::of(&measured)?;
    let path = args.output.join("performance.md");
    let old = fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))?;
    let new = page::splice(&old, &page::write(ratios.as_ref(), &sections))?;
    let folder = args.output.join("performance");
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    for plot in sections.iter().flat_map(|section| &section.plots) {
        write(&folder.join(plot.file), &plot.svg()?)?;
    }
    write(&path, &new)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

/// What a scenario printed.
fn read(file: &Path) -> Result<Measured, Error> {
    let text = fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
    let measured: Result<Measured, _> = serde_json::from_str(&text);
    let measured = measured.map_err(|error| foreign(file, "a scenario", &error))?;
    if sections::is_known(&measured.scenario) {
        Ok(measured)
    } else {
        let unknown = format!("no scenario is called {:?}", measured.scenario);
        Err(foreign(file, "a scenario", &unknown))
    }
}

fn read_ratios(file: &Path) -> Result<Ratios, Error> {
    let text = fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
    serde_json::from_str(&text).map_err(|error| foreign(file, "`confab bench ratios`", &error))
}

fn foreign(file: &Path, whose: &str, why: &dyn std::fmt::Display) -> Error {
    let file = file.display();
    Error::Failed(format!(
        "{file} is not what {whose} prints with --json: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND_JSON: &str = include_str!("report/send.json");
    const IDLE_JSON: &str = include_str!("report/idle.json");
    const LIMITS_JSON: &str = include_str!("report/limits.json");
    const RATIOS_JSON: &str = include_str!("report/ratios.json");

    #[test]
    fn same_measurements_give_same_page_and_plots() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("performance.md");
        let [send, idle, limits, ratios] =
            ["send", "idle", "limits", "ratios"].map(|name| folder.path().join(name));
        fs::write(
            &page,
            "Before.\n\n<!-- bench: begin -->\nold\n<!-- bench: end -->\n\nBehind.\n",
        )
        .unwrap();
        fs::write(&send, SEND_JSON).unwrap();
        for (file, text) in [
            (&idle, IDLE_JSON),
            (&limits, LIMITS_JSON),
            (&ratios, RATIOS_JSON),
        ] {
            fs::write(file, text).unwrap();
        }
        let args = ReportArgs {
            files: vec![send, idle, limits],
            ratios: Some(ratios),
            output: folder.path().to_owned(),
        };
        run(&args).unwrap();
        let first = fs::read_to_string(&page).unwrap();
        let svg = fs::read_to_string(folder.path().join("performance/send-latency.svg")).unwrap();
        run(&args).unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), first, "again");
        insta::assert_snapshot!("page", first);
        insta::assert_snapshot!("send-latency.svg", svg);
    }

    #[test]
    fn a_file_of_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other.json");
        let told = |text: &str| {
            fs::write(&file, text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            error.replace(&file.display().to_string(), "FILE")
        };
        assert_eq!(
            told(r#"{"name":"x"}"#),
            "FILE is not what a scenario prints with --json: missing field `scenario` at line 1 column 12"
        );
        let other =
            r#"{"scenario":"tea","build":"debug","processors":2,"settings":{},"measured":{}}"#;
        assert_eq!(
            told(other),
            r#"FILE is not what a scenario prints with --json: no scenario is called "tea""#
        );
        assert!(read_ratios(&file).is_err());
    }

    #[test]
    fn result_file_without_shown_number_is_error() {
        let measured: Measured = serde_json::from_str(&SEND_JSON.replace("p99", "p98")).unwrap();
        let error = sections::of(&[measured]).unwrap_err().to_string();
        assert_eq!(error, "send: no number at /measured/acknowledged/p99");
    }
}
