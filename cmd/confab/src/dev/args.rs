//! The flags of `confab dev`.

use std::path::PathBuf;

/// Start a private NATS and Postgres, workers and gateways, and print how to try them. Ctrl-C stops everything.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct DevArgs {
    /// How many gateways.
    #[arg(
        long,
        env = "CONFAB_DEV_GATEWAYS",
        value_name = "NUMBER",
        default_value_t = 2,
        help_heading = PROCESSES_HEADING
    )]
    pub(super) gateways: usize,
    /// How many workers.
    #[arg(
        long,
        env = "CONFAB_DEV_WORKERS",
        value_name = "NUMBER",
        default_value_t = 2,
        help_heading = PROCESSES_HEADING
    )]
    pub(super) workers: usize,
    /// Leave a process that dies dead.
    #[arg(long, env = "CONFAB_DEV_NO_RESTART", help_heading = PROCESSES_HEADING)]
    pub(super) no_restart: bool,
    /// Time that a gateway which is stopped goes on accepting connections.
    ///
    /// None, for nothing balances clients over them here.
    #[arg(
        long,
        env = "CONFAB_DRAIN_DELAY",
        value_name = "SECONDS",
        default_value_t = 0,
        help_heading = PROCESSES_HEADING
    )]
    pub(super) drain_delay: u64,
    /// Origins of pages that may call, beside those of this machine, separated by commas.
    ///
    /// Such as `https://app.example`. Pages of this machine may call on any port, by http and https.
    #[arg(
        long,
        env = "CONFAB_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Browsers"
    )]
    cors_origins: Vec<String>,
    /// Where data, keys and logs are kept.
    #[arg(
        long,
        env = "CONFAB_DEV_DATA_DIR",
        value_name = "PATH",
        default_value = ".confab/data",
        help_heading = FILES_HEADING
    )]
    pub(super) data_dir: PathBuf,
    /// Where nats-server and PostgreSQL are looked for when they are not on PATH.
    #[arg(
        long,
        env = "CONFAB_DEV_TOOLS_DIR",
        value_name = "PATH",
        default_value = ".confab/tools",
        help_heading = FILES_HEADING
    )]
    pub(super) tools_dir: PathBuf,
    /// Write what was started, as JSON, to this file once everything is ready.
    #[arg(
        long,
        env = "CONFAB_DEV_READY_FILE",
        value_name = "PATH",
        help_heading = FILES_HEADING
    )]
    pub(super) ready_file: Option<PathBuf>,
}

const PROCESSES_HEADING: &str = "Processes";
const FILES_HEADING: &str = "Files";

const USAGE_EXAMPLES: &str = "\
Examples:
  confab dev
  confab dev --gateways 1 --workers 1 --cors-origins https://app.example";

/// What lets in pages of this machine, in a gateway's `CONFAB_CORS_ORIGINS`.
const LOCAL_PAGES: &str = "localhost";

impl DevArgs {
    /// Origins of pages that may call: those of this machine, and those given.
    pub(super) fn origins(&self) -> String {
        let given = self.cors_origins.iter().map(String::as_str);
        let mut all: Vec<_> = std::iter::once(LOCAL_PAGES).chain(given).collect();
        all.retain(|origin| !origin.is_empty());
        all.join(",")
    }
}
