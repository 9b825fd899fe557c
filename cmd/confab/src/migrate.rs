//! `confab migrate`: brings a database to this version's schema.

use anyhow::bail;
use confab_protocol::check::CheckStatus;
use confab_worker::DatabaseSettings;
use tracing::info;

use crate::doctor;

/// Bring the database to the schema of this version. Safe to run at any time, and several at once.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseSettings,
}

const USAGE_EXAMPLES: &str = "\
Example:
  confab migrate --database-url postgres://confab@127.0.0.1:5432/confab";

pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let address = confab_worker::database_address(&args.database.database_url)?;
    info!(address, "migrating the database");
    let reached = confab_worker::check_reachable(&args.database).await;
    if reached.status == CheckStatus::Fail {
        bail!(doctor::line(&reached));
    }
    confab_worker::migrate(&args.database).await?;
    info!("the database has this version's schema");
    Ok(())
}
