//! `confab migrate`: brings a database to this version's schema.

use tracing::info;

/// Bring the database to the schema of this version. Safe to run at any time, and several at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Required: the Postgres primary, postgres://user:password@host:port/database.
    #[arg(
        long,
        env = "CONFAB_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Required"
    )]
    database_url: String,
}

const EXAMPLES: &str = "\
Example:
  confab migrate --database-url postgres://confab@127.0.0.1:5432/confab";

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    confab_worker::migrate(&args.database_url).await?;
    info!("the database has this version's schema");
    Ok(())
}
