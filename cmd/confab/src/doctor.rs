//! `confab doctor`: all checks of what a role needs, at will; and the same checks beside a role that starts.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use confab_bus::check::Role as NatsRole;
use confab_protocol::check::{Check, CheckStatus};
use confab_worker::When;
use tracing::{debug, warn};

mod listening;
mod report;

pub(crate) use listening::cannot_listen;
pub(crate) use report::line;

use crate::{gateway, worker};

/// Check what a role needs: NATS, Postgres, key sets, clocks, addresses; print what is wrong, and what to do.
///
/// It takes the flags and variables of the role, behind the role's name. Without a role the environment says what is checked:
/// `CONFAB_DATABASE_URL` a worker; `CONFAB_JWT_JWKS_URL`, `CONFAB_JWT_PUBLIC_KEY` or `CONFAB_JWT_ISSUERS` a gateway. Nothing is
/// changed. Ends with 1 where a check fails, and within ten seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Print JSON instead of text.
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

const USAGE_EXAMPLES: &str = "\
Examples:
  confab doctor
  confab doctor worker --database-url postgres://confab@127.0.0.1:5432/confab
  confab doctor --json gateway --jwt-jwks-url https://login.example/jwks.json \\
    --jwt-issuer https://login.example/ --jwt-audience chat --single-tenant";

/// What is checked.
#[derive(Debug, Subcommand)]
enum Role {
    /// Check what a worker with these flags needs.
    #[command(long_about = None)]
    Worker(Box<worker::WorkerArgs>),
    /// Check what a gateway with these flags needs.
    #[command(long_about = None)]
    Gateway(Box<gateway::GatewayArgs>),
}

/// How long the checks of a role may take, all together.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(9);

/// Variables that say that there is a gateway to check.
const GATEWAY_VARIABLES: [&str; 3] = [
    "CONFAB_JWT_JWKS_URL",
    "CONFAB_JWT_PUBLIC_KEY",
    "CONFAB_JWT_ISSUERS",
];

pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let roles = match args.role {
        Some(role) => vec![Ok(role)],
        None => of_environment()?,
    };
    let checking = roles.into_iter().map(async |role| match role {
        Ok(Role::Worker(args)) => {
            report::Report::new("worker", Box::pin(in_time(check_worker(*args))).await)
        }
        Ok(Role::Gateway(args)) => {
            report::Report::new("gateway", in_time(check_gateway(*args)).await)
        }
        Err((role, check)) => report::Report::new(role, vec![*check]),
    });
    let reports = futures_util::future::join_all(checking).await;
    let mut out = std::io::stdout().lock();
    if args.json {
        report::json(&mut out, &reports)?;
    } else {
        report::text(&mut out, &reports)?;
    }
    drop(out);
    let checks = reports.iter().flat_map(report::Report::checks);
    let failed = checks.filter(|check| check.status == CheckStatus::Fail);
    match failed.count() {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        count => bail!("{count} checks failed"),
    }
}

async fn in_time(checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    let checked = tokio::time::timeout(CHECKS_TIMEOUT, Box::pin(checks)).await;
    checked.unwrap_or_else(|_late| {
        let found = format!("the checks did not end within {CHECKS_TIMEOUT:?}");
        let remedy = "run the doctor again, with --log debug";
        vec![Check::fail("doctor", "this host", found, remedy)]
    })
}

/// A role whose settings cannot be read, and the check that says so.
type Unreadable = (&'static str, Box<Check>);

/// The roles that the environment has settings of.
///
/// # Errors
/// When it has none of any.
fn of_environment() -> anyhow::Result<Vec<Result<Role, Unreadable>>> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut roles = Vec::new();
    if is_set("CONFAB_DATABASE_URL") {
        roles.push(parse("worker").map(|args| Role::Worker(Box::new(args))));
    }
    if GATEWAY_VARIABLES.iter().any(|name| is_set(name)) {
        roles.push(parse("gateway").map(|args| Role::Gateway(Box::new(args))));
    }
    if roles.is_empty() {
        bail!(
            "nothing says what to check: set CONFAB_DATABASE_URL for a worker or CONFAB_JWT_JWKS_URL and the like for a gateway, or \
             give a role with its flags, as in `confab doctor worker --database-url postgres://…`"
        );
    }
    Ok(roles)
}

/// A role's arguments where it has no flags.
fn parse<T: clap::Args>(name: &'static str) -> Result<T, Unreadable> {
    let command = T::augment_args(clap::Command::new(name));
    let parsed = command
        .try_get_matches_from([name])
        .and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let text = error.to_string();
        // Behind the first paragraph it says how the command is used.
        let lines = text.lines().take_while(|line| !line.is_empty());
        let cause = lines.map(str::trim).collect::<Vec<_>>().join(" ");
        let found = format!("the variables of a {name} cannot be used");
        let remedy = format!("correct the variable: `confab {name} --help` has all");
        let check = Check::fail("settings", "the environment", found, remedy);
        let cause = cause.trim_start_matches("error: ");
        (name, Box::new(check.caused_by(cause)))
    })
}

async fn check_worker(args: worker::WorkerArgs) -> Vec<Check> {
    let worker::WorkerArgs { listen, settings } = args;
    let (nats, postgres, listen) = tokio::join!(
        confab_bus::check::nats(&settings.nats, NatsRole::Worker),
        confab_worker::check_database(&settings, When::AtWill),
        listening::check(listen),
    );
    [nats, postgres, vec![listen]].concat()
}

async fn check_gateway(args: gateway::GatewayArgs) -> Vec<Check> {
    let settings = args.settings;
    let (nats, keys, listen) = tokio::join!(
        confab_bus::check::nats(&settings.nats, nats_role(&settings)),
        confab_auth::check_keys(&settings.tokens),
        listening::check(settings.http.listen),
    );
    [nats, keys, vec![listen]].concat()
}

const fn nats_role(settings: &confab_gateway::Settings) -> NatsRole {
    NatsRole::Gateway {
        sessions_max_bytes: settings.sessions.sessions_max_bytes,
    }
}

/// Logs what is wrong with what a worker needs, once, while it starts.
pub(crate) async fn tell_worker(settings: confab_worker::Settings) -> Infallible {
    tokio::join!(
        tell(confab_bus::check::nats(&settings.nats, NatsRole::Worker)),
        tell(confab_worker::check_database(&settings, When::Start)),
    );
    pending().await
}

/// Logs what is wrong with what a gateway needs, once, while it starts.
pub(crate) async fn tell_gateway(settings: confab_gateway::Settings) -> Infallible {
    tokio::join!(
        tell(confab_bus::check::nats(
            &settings.nats,
            nats_role(&settings)
        )),
        tell(confab_auth::check_keys(&settings.tokens)),
    );
    pending().await
}

async fn tell(checks: impl Future<Output = Vec<Check>>) {
    for check in checks.await {
        let cause = check.cause();
        let Check {
            name,
            address,
            found,
            remedy,
            ..
        } = check;
        match remedy {
            Some(remedy) => warn!(check = name, %address, cause, remedy, "{found}"),
            None => debug!(check = name, %address, "{found}"),
        }
    }
}
