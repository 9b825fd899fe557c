//! confab, a distributed conversation service: its roles and its tools in one binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing::error;

mod admin;
mod bench;
mod dev;
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
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed conversation service: conversations, participants and messages, over HTTP and WebSocket.
///
/// Gateways serve clients, workers decide and store, NATS carries everything between them, Postgres keeps it. Every
/// setting is a flag and an environment variable; the flag wins.
#[derive(Debug, Parser)]
#[command(name = "confab", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    log: telemetry::Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Gateway(Box<gateway::Args>),
    Worker(Box<worker::Args>),
    Dev(dev::Args),
    Token(Box<token::Args>),
    Migrate(migrate::Args),
    Send(send::Args),
    Listen(listen::Args),
    Session(session::Args),
    Bench(Box<bench::Args>),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    #[command(name = "asyncapi")]
    AsyncApi(openapi::AsyncApi),
}

impl Command {
    /// Whether the command is a process of an installation, whose last words belong in its log.
    const fn is_role(&self) -> bool {
        matches!(self, Self::Gateway(_) | Self::Worker(_))
    }

    /// What is logged where nobody says it: in the terminal, what is asked for stands alone.
    const fn usual_log(&self) -> &'static str {
        match self {
            Self::Session(_) | Self::Bench(_) => "error",
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
    let Cli { log, command } = Cli::parse();
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

fn start(log: &telemetry::Settings, command: Command) -> anyhow::Result<()> {
    telemetry::start(log, command.usual_log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(Box::pin(command.run()));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_of_a_role_has_a_flag_a_variable_and_a_help() {
        let cli = Cli::command();
        for role in ["gateway", "worker", "migrate"] {
            let command = cli.find_subcommand(role).unwrap();
            assert!(command.get_about().is_some(), "{role}");
            for setting in command.get_arguments() {
                let id = setting.get_id();
                assert!(setting.get_long().is_some(), "{role}: {id} has no flag");
                assert!(setting.get_help().is_some(), "{role}: {id} has no help");
                let env = setting.get_env().map(|name| name.to_string_lossy());
                assert!(
                    env.is_some_and(|name| name.starts_with("CONFAB_")),
                    "{role}: {id} has no variable"
                );
            }
        }
    }
}
