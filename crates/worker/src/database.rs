//! Connections to Postgres, with the settings that the defaults get wrong for us.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::error::Error;
use crate::settings::Settings;

pub(crate) mod check;
mod connector;
mod migrating;
mod pool;
pub(crate) mod server;

pub(crate) use connector::Connector;
pub use migrating::migrate;
pub(crate) use pool::{AcquireError, Pool, READ_COMMITTED, SNAPSHOT, Siblings, Transaction};

/// How long a connection of the pool is waited for: well within the budget of a gateway's first attempt, so that the answer
/// while Postgres is away is that it is away, and no timeout.
pub(crate) const ACQUIRE: Duration = Duration::from_secs(1);
/// How much longer than Postgres' own timeout a statement is waited for, before its connection counts as lost: sqlx sets no
/// TCP keepalive, so that a connection whose peer vanished would be waited for without end.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// How long a statement waits for another's lock where others wait behind it: it is postponed then. Above what a commit takes that is on
/// its way, so that those who meet do not go round in circles.
pub(crate) const SHORT_LOCK_TIMEOUT: (&str, &str) = ("lock_timeout", "20ms");

/// How long a worker may say nothing inside a transaction, as Postgres writes it: a worker that stopped there holds its locks for so long, and
/// who waits for them is to wait for less than a second.
pub(crate) const IDLE_IN_TRANSACTION: &str = "700ms";

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
pub(crate) fn pool(
    settings: &Settings,
    siblings: &Siblings,
    connections: u32,
    purpose: &str,
) -> Result<Pool, Error> {
    let connector = connector(settings, purpose)?.with([SHORT_LOCK_TIMEOUT]);
    Ok(Pool::among(siblings, connector, connections, ACQUIRE))
}

/// The same for what waits for locks.
pub(crate) fn waiting_pool(
    settings: &Settings,
    siblings: &Siblings,
    connections: u32,
    purpose: &str,
) -> Result<Pool, Error> {
    let connector = connector(settings, purpose)?;
    Ok(Pool::among(siblings, connector, connections, ACQUIRE))
}

/// How a connection is made that Postgres shows under `purpose`.
pub(crate) fn connector(settings: &Settings, purpose: &str) -> Result<Connector, Error> {
    let options = options(settings, purpose)?;
    Ok(Connector::new(options, &settings.database))
}

/// The same without what stands in files.
pub(crate) fn options(settings: &Settings, purpose: &str) -> Result<PgConnectOptions, Error> {
    let milliseconds = |ms: u64| format!("{ms}ms");
    let options = connect_options(&settings.database.database_url)?
        .application_name(&format!("confab-worker {purpose}"))
        .options([
            (
                "statement_timeout",
                milliseconds(settings.statement_timeout_ms),
            ),
            ("lock_timeout", milliseconds(settings.lock_timeout_ms)),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION.to_owned(),
            ),
            ("tcp_user_timeout", "10s".to_owned()),
            ("tcp_keepalives_idle", "10".to_owned()),
            ("tcp_keepalives_interval", "3".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("client_connection_check_interval", "1s".to_owned()),
        ])
        .options(PLANS)
        .disable_statement_logging();
    Ok(options)
}

/// What a database URL says. An IPv6 address stands in brackets there (RFC 3986, section 3.2.2), which are no part of it.
fn connect_options(database_url: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(database_url).map_err(Error::DatabaseUrl)?;
    let host = options.get_host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .map(str::to_owned);
    Ok(match address {
        Some(address) => options.host(&address),
        None => options,
    })
}

/// Ends a wait for Postgres that Postgres itself should have ended before: what is silent for longer is lost, and its connection, which
/// the work owns, is closed.
///
/// # Errors
/// Those of the work; an IO error when it is silent for longer than [`SILENCE`].
pub(crate) async fn bounded<T, E: From<sqlx::Error>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let ended = tokio::time::timeout(SILENCE, work).await;
    ended.map_err(silent)?
}

/// The schema that this version works with.
static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Whether the schema is as new as this version needs it: a worker that begins before its migration would refuse what an older one can do.
///
/// # Errors
/// When Postgres is away, or was never migrated.
pub(crate) async fn is_migrated(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    let done = "select exists (select from _sqlx_migrations where version = $1 and success)";
    sqlx::query_scalar(done)
        .bind(newest)
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn ipv6_address_stands_in_brackets() {
        let host = |url| connect_options(url).unwrap().get_host().to_owned();
        assert_eq!(host("postgres://u:p@[::1]:5433/d"), "::1");
        assert_eq!(host("postgres://u@[2001:db8::7]/d"), "2001:db8::7");
        assert_eq!(host("postgres://u@127.0.0.1:5433/d"), "127.0.0.1");
        assert_eq!(host("postgres://u@db.example/d"), "db.example");
    }

    #[tokio::test]
    async fn a_schema_is_new_enough_when_the_newest_migration_has_succeeded() {
        let fixture = Fixture::new().await;
        let pool = &fixture.pool;
        let is_migrated = async || is_migrated(&mut pool.acquire().await.unwrap()).await;
        assert!(is_migrated().await.unwrap());
        for change in [
            "update _sqlx_migrations set success = false where version = (select max(version) from _sqlx_migrations)",
            "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)",
        ] {
            sqlx::query(change).execute(pool).await.unwrap();
            assert!(!is_migrated().await.unwrap());
        }
        sqlx::query("drop table _sqlx_migrations")
            .execute(pool)
            .await
            .unwrap();
        is_migrated().await.unwrap_err();
    }
}
