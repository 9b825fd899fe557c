//! Whether the server, and what stands before it, is one that a worker works with: asked once, before anything is served.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::timeout;
use tracing::warn;

use super::{Connector, IDLE_IN_TRANSACTION, SHORT_LOCK_TIMEOUT};
use crate::error::Error;

/// How long the server may take to answer one session while another is inside a transaction: a pooler with one connection does not.
const SECOND_SESSION_TIMEOUT: Duration = Duration::from_millis(500);

/// How many connections the server has left for this role and database, those that are reserved not among them.
const CONNECTIONS_LEFT: &str = "\
    select least( \
        current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint \
            - coalesce(current_setting('reserved_connections', true)::bigint, 0) \
            - (select count(*) from pg_stat_activity where datid is not null), \
        (select case when r.rolconnlimit >= 0 and not r.rolsuper then r.rolconnlimit \
            - (select count(*) from pg_stat_activity a where a.usesysid = r.oid) end from pg_roles r where r.rolname = current_user), \
        (select case when d.datconnlimit >= 0 then d.datconnlimit \
            - (select count(*) from pg_stat_activity a where a.datid = d.oid) end from pg_database d where d.datname = current_database()) \
    ) as connections_left";

/// Refuses a pooler that hands out server connections by the transaction, or loses the settings of a session: prepared statements go
/// wrong behind the one, and plans, timeouts and lost connections behind the other.
///
/// # Errors
/// [`Error::Pooler`] with the reason; otherwise what keeps the server from being asked.
pub(crate) async fn check(connector: &Connector) -> Result<(), Error> {
    let connect = async |connector: &Connector| match connector.connect().await {
        Err(error) if error.to_string().contains("unsupported startup parameter") => Err(
            Error::Pooler("it takes no settings at the start of a session"),
        ),
        connected => connected.map_err(Error::from),
    };
    let mut one = connect(connector).await?;
    if !has_settings(&mut one).await? {
        return Err(Error::Pooler("it loses the settings of a session"));
    }
    // A role may have most settings by itself, and not one that differs by the connection.
    let mut other = connect(&connector.clone().with([SHORT_LOCK_TIMEOUT])).await?;
    if has_other_backends(&mut one, &mut other).await? {
        return Err(Error::Pooler(
            "two transactions of one session ran on two connections of the server",
        ));
    }
    if !has_short_lock_timeout(&mut other).await? {
        return Err(Error::Pooler("it loses the settings of a session"));
    }
    close(one).await;
    close(other).await;
    Ok(())
}

/// Whether the settings that a connection was made with stand, those of plans and the timeouts: asked by plain text, which has no
/// prepared statement.
async fn has_settings(connection: &mut PgConnection) -> Result<bool, Error> {
    let select = format!(
        "select current_setting('plan_cache_mode') = 'force_generic_plan' and current_setting('enable_seqscan') = 'off' \
         and current_setting('jit') = 'off' \
         and current_setting('idle_in_transaction_session_timeout') = '{IDLE_IN_TRANSACTION}' as has_settings"
    );
    let row = connection.fetch_one(AssertSqlSafe(select)).await?;
    Ok(row.try_get("has_settings")?)
}

/// The same of the setting that pools differ in.
async fn has_short_lock_timeout(connection: &mut PgConnection) -> Result<bool, Error> {
    let (name, value) = SHORT_LOCK_TIMEOUT;
    let select = format!("select current_setting('{name}') = '{value}' as has_setting");
    let row = connection.fetch_one(AssertSqlSafe(select)).await?;
    Ok(row.try_get("has_setting")?)
}

/// Whether a session has another backend in its second transaction, while another session is inside one: what was free is taken by that.
async fn has_other_backends(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<bool, Error> {
    let first = backend(one).await?;
    other.execute("begin").await?;
    other.execute("select 1").await?;
    let second = timeout(SECOND_SESSION_TIMEOUT, backend(one)).await;
    // None was free in time: that may pass.
    let second = second.map_err(|_late| sqlx::Error::PoolTimedOut)??;
    other.execute("rollback").await?;
    Ok(second != first)
}

async fn backend(connection: &mut PgConnection) -> Result<i32, Error> {
    let row = connection
        .fetch_one("select pg_backend_pid() as pid")
        .await?;
    Ok(row.try_get("pid")?)
}

async fn close(connection: PgConnection) {
    drop(timeout(SECOND_SESSION_TIMEOUT, connection.close()).await);
}

/// Says so when the server has fewer connections left than a worker may want, one of its own being in use for this.
///
/// # Errors
/// When the server cannot be asked.
pub(crate) async fn compare_connections(
    connection: &mut PgConnection,
    wanted: u32,
) -> Result<(), sqlx::Error> {
    let left = connections_left(connection).await?;
    if left < i64::from(wanted) {
        warn!(
            left,
            wanted,
            remedy = CONNECTIONS_REMEDY,
            "Postgres has fewer connections left than this worker may want: until then work waits for connections"
        );
    }
    Ok(())
}

/// What to do where connections are too few.
pub(super) const CONNECTIONS_REMEDY: &str = "raise max_connections, or the limit of the role or database, or lower CONFAB_QUERIES and \
                                             CONFAB_COMMAND_SLOTS";

/// How many connections the server has left, that of the question among them.
///
/// # Errors
/// When the server cannot be asked.
pub(super) async fn connections_left(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let row = connection.fetch_one(CONNECTIONS_LEFT).await?;
    Ok(row.try_get::<i64, _>("connections_left")?.saturating_add(1))
}

#[cfg(test)]
mod tests;
