//! `confab gateway`: the role that clients talk to.

use std::future::ready;
use std::time::Duration;

use confab_gateway::{Gateway, Settings};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{admin, lifecycle, telemetry};

/// Serve clients over HTTP and WebSocket. Needs NATS, and no database.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// What a gateway may take beyond its drain delay and drain time to end its tasks and its connection to NATS.
const MARGIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let drain = args
        .settings
        .drain_delay
        .saturating_add(args.settings.drain);
    let deadline = Duration::from_secs(drain) + MARGIN;
    let role = serve(args.settings, stop.clone());
    lifecycle::run(stop, deadline, Box::pin(role)).await
}

/// Every socket takes a descriptor, and systems start processes with few: as many as may be had are taken.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    raise_descriptors();
    let mut registry = telemetry::registry();
    let gateway = Box::pin(Gateway::build(settings, &mut registry, stop)).await?;
    let readiness = gateway.readiness();
    let admin = admin::router(registry, move || ready(readiness.missing()));
    Ok(Box::pin(gateway.run(admin)).await?)
}
