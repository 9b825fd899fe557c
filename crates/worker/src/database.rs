//! Connections to Postgres, with the settings that the defaults get wrong for us.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool, Postgres};

use crate::error::Error;
use crate::settings::Settings;

mod kept;

pub(crate) use kept::Kept;

/// How long a connection of the pool is waited for: well within the budget of a gateway's first attempt, so that the answer
/// while Postgres is away is that it is away, and no timeout.
pub(crate) const ACQUIRE: Duration = Duration::from_secs(1);
/// How much longer than Postgres' own timeout a statement is waited for, before its connection counts as lost: sqlx sets no
/// TCP keepalive, so that a connection whose peer vanished would be waited for without end.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Plans must not depend on statistics: those of a new installation are of empty tables. Every statement of a worker looks rows up by an
/// index, and the pages of lists come in an index's order: whatever could replace that is off.
pub(crate) const PLANS: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A pool of up to `connections`, which Postgres shows under `purpose`. None is opened yet.
pub(crate) fn pool(settings: &Settings, connections: u32, purpose: &str) -> Result<PgPool, Error> {
    let milliseconds = |ms: u64| format!("{ms}ms");
    let options = PgConnectOptions::from_str(&settings.database_url)
        .map_err(Error::DatabaseUrl)?
        .application_name(&format!("confab-worker {purpose}"))
        .options([
            (
                "statement_timeout",
                milliseconds(settings.statement_timeout_ms),
            ),
            ("lock_timeout", milliseconds(settings.lock_timeout_ms)),
            ("idle_in_transaction_session_timeout", "30s".to_owned()),
            ("tcp_user_timeout", "10s".to_owned()),
            ("tcp_keepalives_idle", "10".to_owned()),
            ("tcp_keepalives_interval", "3".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("client_connection_check_interval", "1s".to_owned()),
        ])
        .options(PLANS)
        .disable_statement_logging();
    // A broken connection shows at its first use, and what failed is tried again on another: no ping before each use.
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// A connection of the pool.
///
/// # Errors
/// `PoolTimedOut` for whatever kept it from being had: nothing was executed.
pub(crate) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    pool.acquire().await.map_err(|error| {
        tracing::debug!(%error, "no connection to Postgres");
        sqlx::Error::PoolTimedOut
    })
}

/// The schema that this version works with.
static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Whether the schema is as new as this version needs it: a worker that begins before its migration would refuse what an older one can do.
///
/// # Errors
/// When Postgres is away, or was never migrated.
pub(crate) async fn is_migrated(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    let done = "select exists (select from _sqlx_migrations where version = $1 and success)";
    sqlx::query_scalar(done).bind(newest).fetch_one(pool).await
}

/// Brings the schema up to date; several may do so at once.
///
/// # Errors
/// When Postgres is away, or its schema is not one of ours.
pub async fn migrate(database_url: &str) -> Result<(), Error> {
    let options = PgConnectOptions::from_str(database_url).map_err(Error::DatabaseUrl)?;
    let options = options
        .application_name("confab-migrate")
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    MIGRATIONS.run(&pool).await?;
    pool.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_schema_is_new_enough_when_the_newest_migration_has_succeeded() {
        let fixture = Fixture::new().await;
        let pool = &fixture.pool;
        assert!(is_migrated(pool).await.unwrap());
        for change in [
            "update _sqlx_migrations set success = false where version = (select max(version) from _sqlx_migrations)",
            "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
        ] {
            sqlx::query(change).execute(pool).await.unwrap();
            assert!(!is_migrated(pool).await.unwrap());
        }
        sqlx::query("drop table _sqlx_migrations")
            .execute(pool)
            .await
            .unwrap();
        is_migrated(pool).await.unwrap_err();
    }
}
