//! Bringing the schema up to date, and saying what that waits for.

use std::time::Duration;

use confab_protocol::chain::chain;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tracing::{info, warn};

use super::{Connector, MIGRATIONS, bounded, connect_options};
use crate::error::Error;
use crate::settings::DatabaseSettings;

/// How long migrations may wait for others before it is said for whom.
const FIRST_LOOK: Duration = Duration::from_millis(1500);
/// How often it is said again.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Sessions that hold what another one waits for, with the age of their transactions in seconds.
const BLOCKING: &str = "\
    select pid, application_name, coalesce(state, '') as state, \
        coalesce(extract(epoch from clock_timestamp() - xact_start)::bigint, 0) as age \
    from pg_stat_activity where pid = any(pg_blocking_pids($1))";

/// Brings the schema up to date; several may do so at once. While it waits for other sessions, it logs which.
///
/// # Errors
/// When Postgres is away, or its schema is not one of ours.
pub async fn migrate(settings: &DatabaseSettings) -> Result<(), Error> {
    let options = connect_options(&settings.database_url)?;
    let options = options
        .application_name("confab-migrate")
        .disable_statement_logging();
    let connector = Connector::new(options, settings);
    let mut connection = Box::pin(bounded(connector.connect())).await?;
    let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection);
    let pid: i32 = bounded(pid).await?;
    tokio::select! {
        migrated = Box::pin(MIGRATIONS.run(&mut connection)) => migrated?,
        () = Box::pin(tell_waits(&connector, pid)) => {}
    }
    connection.close().await?;
    Ok(())
}

/// Says for ever for whom the session waits, or that it is at work.
async fn tell_waits(connector: &Connector, pid: i32) {
    tokio::time::sleep(FIRST_LOOK).await;
    loop {
        if let Err(error) = Box::pin(bounded(tell_blocking(connector, pid))).await {
            warn!(error = %chain(&error), "Postgres does not say what the migration waits for");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn tell_blocking(connector: &Connector, pid: i32) -> Result<(), sqlx::Error> {
    let mut connection = connector.connect().await?;
    let rows = sqlx::query(BLOCKING)
        .bind(pid)
        .fetch_all(&mut connection)
        .await?;
    if rows.is_empty() {
        info!("the migration is at work");
    }
    for row in rows {
        let (by, name, state): (i32, String, String) = (
            row.try_get("pid")?,
            row.try_get("application_name")?,
            row.try_get("state")?,
        );
        info!(
            pid = by,
            application = name,
            state,
            transaction_seconds = row.try_get::<i64, _>("age")?,
            "the migration waits for another session of Postgres: let it end, or end it with pg_terminate_backend"
        );
    }
    connection.close().await
}
