//! `confab worker`: the role that decides and stores.

use std::time::Duration;

use anyhow::{Context as _, bail};
use confab_gateway::ListenAddress;
use confab_worker::{Settings, Worker};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{admin, doctor, lifecycle, telemetry};

/// Decide commands, commit them to Postgres, publish what was committed, answer queries. Needs NATS and Postgres.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Where /health, /ready, /metrics and /version are served; no client connects here.
    ///
    /// A port alone is listened on at every address of the host, IPv6 and IPv4.
    #[arg(
        long,
        env = "CONFAB_LISTEN",
        value_name = "ADDRESS",
        default_value = ":8081",
        help_heading = "Operators"
    )]
    pub(crate) listen: ListenAddress,
}

const USAGE_EXAMPLES: &str = "\
Examples:
  confab worker --database-url postgres://confab@127.0.0.1:5432/confab
  confab worker --database-url 'postgres://confab@db.example/confab?sslmode=verify-full' \\
    --nats-url nats://n1.example,nats://n2.example";

/// What a worker may take beyond its drain time to publish what it committed and to close its connections.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: WorkerArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let deadline = Duration::from_secs(args.settings.drain) + SHUTDOWN_MARGIN;
    let role = serve(args, stop.clone());
    lifecycle::run(stop, deadline, Box::pin(role)).await
}

async fn serve(args: WorkerArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let WorkerArgs { listen, settings } = args;
    let checks = Box::pin(doctor::tell_worker(settings.clone()));
    let mut registry = telemetry::registry();
    let worker = Worker::build(settings, &mut registry, stop).await?;
    let readiness = worker.readiness();
    let admin = admin::router(registry, move || {
        let readiness = readiness.clone();
        async move {
            admin::Readiness {
                missing: readiness.missing().await,
                degraded: readiness.degraded(),
            }
        }
    });
    let listener = listen
        .bind()
        .await
        .map_err(|error| doctor::cannot_listen(listen, &error))?;
    info!(address = %listen, "the worker's admin port listens");
    tokio::select! {
        ended = worker.run() => Ok(ended?),
        ended = axum::serve(listener, admin) => {
            ended.context("the admin port failed")?;
            bail!("the admin port ended")
        }
        never = checks => match never {},
    }
}
