//! Logs, and the metrics that every process has.

use std::io::IsTerminal as _;

use confab_protocol::metric::{Metric, MetricKind};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod conditions;
mod lines;
mod process;

use lines::LineFormat;

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
#[group(skip)]
pub(crate) struct LogSettings {
    /// What is logged: a level, or levels by target, as in `info,confab_gateway=debug`.
    ///
    /// Without it `info`, and `error` for commands that look at an installation. Libraries log nothing below `info`, whatever it says:
    /// they would write message bodies.
    #[arg(long = "log", env = "CONFAB_LOG", value_name = "FILTER", global = true)]
    filter: Option<String>,
    /// How log lines look; `auto` is text on a terminal and JSON otherwise.
    #[arg(
        long = "log-format",
        env = "CONFAB_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        global = true
    )]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Auto,
    Text,
    Json,
}

/// Starts to log, by the filter `usual` where none is set.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn start(settings: &LogSettings, usual: &str) -> anyhow::Result<()> {
    let filter = settings.filter.as_deref().unwrap_or(usual);
    let is_terminal = std::io::stderr().is_terminal();
    let shape = match settings.format {
        Format::Auto if is_terminal => LineFormat::Text { colours: true },
        Format::Text => LineFormat::Text {
            colours: is_terminal,
        },
        Format::Auto | Format::Json => LineFormat::Json,
    };
    let started = lines::subscriber(filter, shape, std::io::stderr)?.try_init();
    started.map_err(|error| anyhow::anyhow!("cannot start to log: {error}"))
}

/// What was built: for `/version` and the metric `confab_build_info`.
pub(crate) const BUILD_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so.
pub(crate) const BUILD_COMMIT: Option<&str> = option_env!("CONFAB_COMMIT");

/// What is built, as an info metric: a gauge that is 1, under its name with `_info`.
const BUILD_METRIC: Metric = Metric {
    name: "confab_build",
    unit: "info",
    kind: MetricKind::Gauge,
    labels: &["version", "commit"],
    help: "The version and commit that runs",
};

/// A registry with what every process tells of itself; its role adds the rest.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    let commit = BUILD_COMMIT.unwrap_or("unknown");
    registry.register(
        BUILD_METRIC.name,
        BUILD_METRIC.help,
        Info::new([("version", BUILD_VERSION), ("commit", commit)]),
    );
    registry.register_collector(Box::new(process::Process));
    registry
}
