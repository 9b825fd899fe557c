//! `confab gateway`: the role that clients talk to.

use std::future::ready;
use std::time::Duration;

use confab_gateway::{Error, Gateway, Settings};
use confab_protocol::chain::chain;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{admin, doctor, lifecycle, telemetry};

/// Serve clients over HTTP and WebSocket. Needs NATS, and no database.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const USAGE_EXAMPLES: &str = "\
Examples:
  confab gateway --jwt-jwks-url https://login.example/jwks.json \\
    --jwt-issuer https://login.example/ --jwt-audience chat --single-tenant
  confab gateway --nats-url nats://n1.example,nats://n2.example --jwt-issuers issuers.toml \\
    --cors-origins https://app.example

docs/operations/tokens.md says what tokens must say,
docs/operations/identity-providers.md has settings for providers.";

/// What a gateway may take beyond its drain delay and drain time to end its tasks and its connection to NATS.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let drain = args
        .settings
        .drain_delay
        .saturating_add(args.settings.drain);
    let deadline = Duration::from_secs(drain) + SHUTDOWN_MARGIN;
    let role = serve(args.settings, stop.clone());
    lifecycle::run(stop, deadline, Box::pin(role)).await
}

/// Descriptors for all but the connections of clients: NATS, logs, key sets, the reserve for probes.
const OTHER_DESCRIPTORS: u64 = 256;

/// Every socket takes a descriptor, and systems start processes with few: as many as may be had are taken. Gives the limit.
fn raise_descriptors() -> nix::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Ok(()) => Ok(most),
        Err(error) => {
            warn!(error = %chain(&error), "the limit of open files stays as it is");
            Ok(soft)
        }
    }
}

/// How many connections of each of the two kinds leave descriptors for the rest.
fn connections_within(descriptors: u64) -> usize {
    let for_clients = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
    usize::try_from(for_clients).unwrap_or(usize::MAX).max(1)
}

/// Without a descriptor nobody is accepted, not even who asks whether the process lives.
fn bound_connections(settings: &mut Settings) {
    let most = match raise_descriptors() {
        Ok(descriptors) => connections_within(descriptors),
        Err(error) => return warn!(error = %chain(&error), "the limit of open files is unknown"),
    };
    if settings.limits.max_connections > most {
        info!(
            max_connections = most,
            "the limit of open files bounds connections"
        );
        settings.limits.max_connections = most;
    }
}

async fn serve(mut settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    bound_connections(&mut settings);
    let checks = Box::pin(doctor::tell_gateway(settings.clone()));
    let mut registry = telemetry::registry();
    let gateway = Box::pin(Gateway::build(settings, &mut registry, stop)).await?;
    let readiness = gateway.readiness();
    let admin = admin::router(registry, move || {
        ready(admin::Readiness {
            missing: readiness.missing(),
            degraded: readiness.degraded(),
        })
    });
    tokio::select! {
        ended = Box::pin(gateway.run(admin)) => ended.map_err(|error| match error {
            Error::Listen(address, error) => doctor::cannot_listen(address, &error),
            error => error.into(),
        }),
        never = checks => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections_within(1024), 384);
        assert_eq!(connections_within(1_048_576), 524_160);
        assert_eq!(connections_within(0), 1);
        assert!(connections_within(u64::MAX) > 100_000);
    }
}
