//! `confab migrate`: brings a database to this version's schema.

use tracing::info;

/// Bring the database to the schema of this version. Safe to run at any time, and several at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Postgres, as a URL: postgres://user:password@host:port/database.
    #[arg(long, env = "CONFAB_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    confab_worker::migrate(&args.database_url).await?;
    info!("the database has this version's schema");
    Ok(())
}
