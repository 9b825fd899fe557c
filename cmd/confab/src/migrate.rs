//! `confab migrate`: brings a database to this version's schema.

use confab_worker::DatabaseSettings;
use tracing::info;

/// Bring the database to the schema of this version. Safe to run at any time, and several at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseSettings,
}

const EXAMPLES: &str = "\
Example:
  confab migrate --database-url postgres://confab@127.0.0.1:5432/confab";

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    confab_worker::migrate(&args.database).await?;
    info!("the database has this version's schema");
    Ok(())
}
