//! confab, a distributed conversation service: its roles and its tools in one binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use tracing::error;

mod admin;
mod bench;
mod connecting;
mod dev;
mod doctor;
mod gateway;
mod lifecycle;
mod listen;
mod migrate;
mod openapi;
mod send;
mod session;
mod telemetry;
mod terminal;
mod token;
mod worker;

/// Many small things of different threads are made and freed for each message: measured, glibc's allocator took a sixth of a gateway.
/// Its version 2: version 3 held 4 KiB more for each idle connection.
#[global_allocator]
static GLOBAL_ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed conversation service: conversations, participants and messages, over HTTP and WebSocket.
///
/// Gateways serve clients, workers decide and store, NATS carries everything between them, Postgres keeps it. Every
/// setting is a flag and an environment variable; the flag wins.
#[derive(Debug, Parser)]
#[command(
    name = "confab",
    version,
    propagate_version = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = USAGE_EXAMPLES,
    mut_subcommand("bench", bench::under_a_heading)
)]
struct Cli {
    #[command(flatten)]
    log: telemetry::LogSettings,
    // Flags of our own, since those that clap makes have no heading and would stand before what is required.
    /// Print this help: -h one line a flag, --help all of it.
    #[arg(id = "help", short = 'h', long = "help", global = true, action = ArgAction::Help, help_heading = HELP_HEADING)]
    _help: Option<bool>,
    /// Print the version.
    #[arg(id = "version", short = 'V', long = "version", global = true, action = ArgAction::Version, help_heading = HELP_HEADING)]
    _version: Option<bool>,
    #[command(subcommand)]
    command: CliCommand,
}

const HELP_HEADING: &str = "Help";

const USAGE_EXAMPLES: &str = "\
Examples:
  confab dev
  confab token --sub carol
  confab gateway -h";

#[derive(Debug, Subcommand)]
enum CliCommand {
    Gateway(Box<gateway::GatewayArgs>),
    Worker(Box<worker::WorkerArgs>),
    Dev(dev::DevArgs),
    Token(Box<token::TokenArgs>),
    Migrate(migrate::MigrateArgs),
    Doctor(doctor::DoctorArgs),
    Send(send::SendArgs),
    Listen(listen::ListenArgs),
    Session(session::SessionArgs),
    Bench(Box<bench::BenchArgs>),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    #[command(name = "asyncapi")]
    AsyncApi(openapi::AsyncApi),
}

impl CliCommand {
    /// Whether the command is a process of an installation, whose last words belong in its log.
    const fn is_role(&self) -> bool {
        matches!(self, Self::Gateway(_) | Self::Worker(_))
    }

    /// What is logged where nobody says it: in the terminal, what is asked for stands alone.
    const fn usual_log(&self) -> &'static str {
        match self {
            Self::Session(_) | Self::Bench(_) => "error",
            // It prints the causes itself.
            Self::Doctor(_) => "off",
            _ => "info",
        }
    }

    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Gateway(args) => gateway::run(*args).await,
            Self::Worker(args) => worker::run(*args).await,
            Self::Dev(args) => dev::run(args).await,
            Self::Token(args) => Box::pin(token::run(*args)).await,
            Self::Migrate(args) => migrate::run(args).await,
            Self::Doctor(args) => Box::pin(doctor::run(args)).await,
            Self::Bench(args) => Box::pin(bench::run(*args)).await,
            Self::Send(args) => send::run(args).await,
            Self::Listen(args) => listen::run(args).await,
            Self::Session(args) => session::run(args).await,
            Self::OpenApi(_) => openapi::print(&confab_gateway::openapi()),
            Self::AsyncApi(_) => openapi::print(&confab_gateway::asyncapi()),
        }
    }
}

/// How long threads that are blocked may hold up the end of the process.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Cli { log, command, .. } = Cli::parse();
    let is_role = command.is_role();
    match start(&log, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if is_role {
                error!(error = format!("{error:#}"), "confab ends with an error");
            } else {
                // Where even standard error is gone, the exit code is all that can be told.
                drop(writeln!(std::io::stderr().lock(), "confab: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn start(log: &telemetry::LogSettings, command: CliCommand) -> anyhow::Result<()> {
    telemetry::start(log, command.usual_log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(Box::pin(command.run()));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

#[cfg(test)]
mod tests;
