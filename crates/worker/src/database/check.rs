//! Checks of Postgres as a worker needs it. Nothing is changed.

use std::time::{Duration, Instant};

use confab_protocol::check::{Check, clock};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{Connector, MIGRATIONS, connect_options, server};
use crate::Sizes;
use crate::error::Error;
use crate::settings::{DatabaseSettings, Settings};

mod refusals;

/// How long all may take beside a worker that starts: it has the reason in its log within two seconds.
const START_DEADLINE: Duration = Duration::from_millis(1900);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long the answers of the server may take, all together, where all is checked.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(3000);
/// How long the end of a connection is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// The oldest Postgres that is supported, as `server_version_num` has it.
const MIN_VERSION: i32 = 150_000;
/// How old a row of the outbox may be before its events count as not published.
const MAX_UNPUBLISHED_SECONDS: f64 = 10.0;
/// Tables that a worker writes with each command.
const TABLES: &str = "'conversations', 'participants', 'events', 'outbox'";

/// What the server says of itself and of this role. A simple query, which has no prepared statement, so that poolers pass it on.
const ABOUT: &str = "\
    select current_setting('server_version') as version, \
        current_setting('server_version_num')::int as version_number, \
        pg_is_in_recovery() as is_standby, \
        current_setting('transaction_read_only') = 'on' as is_read_only, \
        current_setting('server_encoding') as encoding, \
        current_setting('default_transaction_isolation') as isolation, \
        concat_ws(', ', \
            case when current_setting('fsync') = 'off' then 'fsync' end, \
            case when current_setting('full_page_writes') = 'off' then 'full_page_writes' end, \
            case when current_setting('synchronous_commit') = 'off' then 'synchronous_commit' end) as lossy, \
        current_user::text as role, \
        to_regclass('_sqlx_migrations') is not null as is_migrated, \
        current_setting('max_connections')::bigint as max_connections, \
        (select count(*) from pg_stat_activity where datid is not null) as used, \
        (select count(*) from pg_stat_activity where application_name like 'confab-worker %') as of_workers, \
        extract(epoch from clock_timestamp())::float8 as clock";

/// For how many seconds the oldest commit has waited to be published, and how many are stepped over, counted up to a bound.
const UNPUBLISHED: &str = "\
    select (select extract(epoch from clock_timestamp() - created_at)::float8 from outbox \
            where published_at is null and attempts = 0 order by id limit 1) as age, \
        (select count(*) from (select from outbox where published_at is null and attempts > 0 limit 10000) s) as stepped_over";

/// When Postgres is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Beside a worker that starts: it refuses poolers and counts connections itself, and has the outbox to publish yet.
    Start,
    /// At will: all checks.
    AtWill,
}

/// Where Postgres is, without user and password: `host:port/database`.
///
/// # Errors
/// When the URL is none.
pub fn database_address(database_url: &str) -> Result<String, Error> {
    Ok(address(&connect_options(database_url)?))
}

fn address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    let (host, port) = (options.get_host(), options.get_port());
    format!("{host}:{port}/{database}")
}

/// Checks whether Postgres can be connected to, within two seconds.
pub async fn check_reachable(settings: &DatabaseSettings) -> Check {
    match connect(settings).await {
        Ok((connection, address)) => {
            close(connection).await;
            Check::ok("postgres", &address, "connected")
        }
        Err(check) => *check,
    }
}

/// Checks Postgres for a worker of these settings, beside its start within two seconds, else within some four.
pub async fn check_database(settings: &Settings, when: When) -> Vec<Check> {
    let began = Instant::now();
    let (mut connection, address) = match connect(&settings.database).await {
        Ok(connected) => connected,
        Err(check) => return vec![*check],
    };
    let answer_timeout = match when {
        When::Start => START_DEADLINE.saturating_sub(began.elapsed()),
        When::AtWill => ANSWER_TIMEOUT,
    };
    let asking = ask(&mut connection, settings, when, &address);
    let checks = match timeout(answer_timeout, asking).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => vec![refusals::unanswered(&error, &address)],
        Err(_late) => {
            let found =
                format!("Postgres is connected, and does not answer within {answer_timeout:.1?}");
            let remedy = "see what it is busy with (pg_stat_activity), and its disk";
            vec![Check::fail("postgres", &address, found, remedy)]
        }
    };
    close(connection).await;
    checks
}

async fn connect(settings: &DatabaseSettings) -> Result<(PgConnection, String), Box<Check>> {
    let options = connect_options(&settings.database_url).map_err(|error| {
        let found = "CONFAB_DATABASE_URL cannot be read";
        let remedy = "write it as postgres://user:password@host:5432/database, with %40 for @ and the like in the password";
        Check::fail("postgres", "CONFAB_DATABASE_URL", found, remedy).because(&error)
    })?;
    let address = address(&options);
    let options = options
        .application_name("confab check")
        .disable_statement_logging();
    let connector = Connector::new(options, settings);
    let connecting = timeout(CONNECT_TIMEOUT, connector.connect());
    let late = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    match connecting.await.unwrap_or_else(late) {
        Ok(connection) => Ok((connection, address)),
        Err(error) => Err(Box::new(refusals::unreached(&error, &address))),
    }
}

async fn close(connection: PgConnection) {
    drop(timeout(CLOSE_TIMEOUT, connection.close()).await);
}

async fn ask(
    connection: &mut PgConnection,
    settings: &Settings,
    when: When,
    address: &str,
) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    if when == When::AtWill {
        let check = pooler(settings, address).await;
        let is_refused = check.remedy.is_some();
        checks.push(check);
        if is_refused {
            // What follows would be said of whatever connection the pooler lends.
            return Ok(checks);
        }
    }
    let asked = OffsetDateTime::now_utc();
    let about = connection.fetch_one(ABOUT).await?;
    // The server looked at its clock some time between the two.
    let middle = asked + (OffsetDateTime::now_utc() - asked) / 2;
    checks.push(version(&about, address)?);
    checks.push(primary(&about, address)?);
    checks.push(behaviour(&about, address)?);
    let checked = migrations(connection, &about, address).await?;
    let is_migrated = checked.remedy.is_none();
    checks.push(checked);
    if is_migrated {
        checks.push(privileges(connection, &about, address).await?);
    }
    if when == When::AtWill {
        checks.push(connections(connection, &about, settings, address).await?);
        if is_migrated {
            checks.push(outbox(connection, address).await?);
        }
    }
    let now = Duration::try_from(middle - OffsetDateTime::UNIX_EPOCH).unwrap_or_default();
    let ahead = about.try_get::<f64, _>("clock")? - now.as_secs_f64();
    checks.push(clock("postgres.clock", "Postgres", address, ahead));
    Ok(checks)
}

async fn pooler(settings: &Settings, address: &str) -> Check {
    const NAME: &str = "postgres.pooler";
    let checking = async { server::check(&super::connector(settings, "check")?).await };
    match checking.await {
        Ok(()) => Check::ok(
            NAME,
            address,
            "sessions keep their connection and their settings",
        ),
        Err(error @ Error::Pooler(_)) => {
            let remedy = "let CONFAB_DATABASE_URL name Postgres itself, or a pooler in session mode that passes settings on";
            Check::fail(
                NAME,
                address,
                "the pooler before Postgres cannot be used",
                remedy,
            )
            .because(&error)
        }
        Err(Error::Postgres(error)) => refusals::unreached(&error, address),
        Err(error) => {
            let remedy = "look into the log of Postgres, or of the pooler before it";
            Check::fail(NAME, address, "two sessions could not be compared", remedy).because(&error)
        }
    }
}

fn version(about: &PgRow, address: &str) -> Result<Check, sqlx::Error> {
    let (version, number): (String, i32) =
        (about.try_get("version")?, about.try_get("version_number")?);
    let found = format!("connected to Postgres {version}");
    if number >= MIN_VERSION {
        return Ok(Check::ok("postgres", address, found));
    }
    let least = MIN_VERSION / 10_000;
    let found = format!("{found}, and confab needs {least} or later");
    let remedy = format!("upgrade Postgres to {least} or later");
    Ok(Check::fail("postgres", address, found, remedy))
}

fn primary(about: &PgRow, address: &str) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.primary";
    let (is_standby, is_read_only): (bool, bool) =
        (about.try_get("is_standby")?, about.try_get("is_read_only")?);
    Ok(match (is_standby, is_read_only) {
        (true, _) => Check::fail(
            NAME,
            address,
            "Postgres is a standby: it takes no writes",
            "let CONFAB_DATABASE_URL name the primary, or promote this server",
        ),
        (false, true) => Check::fail(
            NAME,
            address,
            "Postgres is read-only (default_transaction_read_only)",
            "set default_transaction_read_only to off for the server, the database and the role of CONFAB_DATABASE_URL",
        ),
        (false, false) => Check::ok(NAME, address, "it is a primary, and takes writes"),
    })
}

/// Settings of the server that promises depend on.
fn behaviour(about: &PgRow, address: &str) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.settings";
    let get = |name| about.try_get::<String, _>(name);
    let (encoding, isolation, lossy, role) = (
        get("encoding")?,
        get("isolation")?,
        get("lossy")?,
        get("role")?,
    );
    if encoding != "UTF8" {
        let found = format!("the database is encoded in {encoding}: it cannot store every text");
        let remedy = "make another with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and migrate that";
        return Ok(Check::fail(NAME, address, found, remedy));
    }
    if isolation != "read committed" {
        let found = format!(
            "default_transaction_isolation is {isolation}: memberships would be read as they were before a lock"
        );
        let remedy =
            format!("ALTER ROLE \"{role}\" SET default_transaction_isolation = 'read committed'");
        return Ok(Check::fail(NAME, address, found, remedy));
    }
    if !lossy.is_empty() {
        let found = format!(
            "{lossy} is off: what was acknowledged can be lost when the server or its machine ends"
        );
        let remedy = "turn it on where messages count";
        return Ok(Check::warn(NAME, address, found, remedy));
    }
    Ok(Check::ok(
        NAME,
        address,
        "encoding, isolation and durability are as confab needs them",
    ))
}

async fn migrations(
    connection: &mut PgConnection,
    about: &PgRow,
    address: &str,
) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.migrations";
    const REMEDY: &str = "run `confab migrate` with this CONFAB_DATABASE_URL";
    if !about.try_get::<bool, _>("is_migrated")? {
        let found = "the database was never migrated";
        return Ok(Check::fail(NAME, address, found, REMEDY));
    }
    let rows = connection
        .fetch_all("select version, success, checksum from _sqlx_migrations order by version")
        .await?;
    let mut applied = Vec::new();
    for row in &rows {
        let version: i64 = row.try_get("version")?;
        let checksum: Vec<u8> = row.try_get("checksum")?;
        if !row.try_get::<bool, _>("success")? {
            let found = format!("migration {version} ended halfway");
            return Ok(Check::fail(NAME, address, found, REMEDY));
        }
        let ours = MIGRATIONS.iter().find(|one| one.version == version);
        if ours.is_some_and(|ours| *ours.checksum != *checksum) {
            let found = format!(
                "migration {version} of the database is not that of this version of confab"
            );
            let remedy = "let CONFAB_DATABASE_URL name the database of this installation; never edit a migration that was run";
            return Ok(Check::fail(NAME, address, found, remedy));
        }
        applied.push(version);
    }
    let newest = MIGRATIONS.iter().map(|one| one.version).max().unwrap_or(0);
    let mut missing = MIGRATIONS.iter().map(|one| one.version);
    if let Some(missing) = missing.find(|version| !applied.contains(version)) {
        let found = format!(
            "the schema is older than this version of confab: migration {missing} of {newest} is missing"
        );
        return Ok(Check::fail(NAME, address, found, REMEDY));
    }
    let last = applied.last().copied().unwrap_or(0);
    if last > newest {
        let found = format!("the schema is newer ({last}) than this version of confab ({newest})");
        let remedy = "finish the upgrade: older workers go on meanwhile";
        return Ok(Check::warn(NAME, address, found, remedy));
    }
    Ok(Check::ok(
        NAME,
        address,
        format!("the schema is this version's ({newest})"),
    ))
}

async fn privileges(
    connection: &mut PgConnection,
    about: &PgRow,
    address: &str,
) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.privileges";
    let select = format!(
        "select coalesce(string_agg(name, ', '), '') as lacking from unnest(array[{TABLES}]) as name \
         where not (has_table_privilege(name, 'select') and has_table_privilege(name, 'insert') \
         and has_table_privilege(name, 'update') and has_table_privilege(name, 'delete'))"
    );
    let row = connection.fetch_one(sqlx::AssertSqlSafe(select)).await?;
    let lacking: String = row.try_get("lacking")?;
    let role: String = about.try_get("role")?;
    if lacking.is_empty() {
        return Ok(Check::ok(
            NAME,
            address,
            format!("the role {role} may read and write"),
        ));
    }
    let found = format!("the role {role} may not read and write: {lacking}");
    let remedy = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO \"{role}\", or run `confab migrate` as it"
    );
    Ok(Check::fail(NAME, address, found, remedy))
}

async fn connections(
    connection: &mut PgConnection,
    about: &PgRow,
    settings: &Settings,
    address: &str,
) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.connections";
    let left = server::connections_left(connection).await?;
    let wanted = i64::from(Sizes::of(settings).all());
    let get = |name| about.try_get::<i64, _>(name);
    let (most, used, of_workers) = (get("max_connections")?, get("used")?, get("of_workers")?);
    let found = format!(
        "a worker wants up to {wanted} connections and {left} are left (max_connections {most}, {used} in use, {of_workers} of them by \
         workers)"
    );
    if left >= wanted {
        return Ok(Check::ok(NAME, address, found));
    }
    Ok(Check::warn(
        NAME,
        address,
        found,
        server::CONNECTIONS_REMEDY,
    ))
}

async fn outbox(connection: &mut PgConnection, address: &str) -> Result<Check, sqlx::Error> {
    const NAME: &str = "postgres.outbox";
    let row = connection.fetch_one(UNPUBLISHED).await?;
    let stepped_over: i64 = row.try_get("stepped_over")?;
    let age: Option<f64> = row.try_get("age")?;
    match age {
        Some(age) if age > MAX_UNPUBLISHED_SECONDS => {
            let found = format!("events that were committed {age:.0} s ago are not in the stream");
            let remedy = "start a worker where none runs; else mend what the checks nats.… name; where they name nothing, restart \
                          nats-server: 2.15.1 leaves a stream whose store was full in error until it is restarted";
            Ok(Check::fail(NAME, address, found, remedy))
        }
        _ if stepped_over > 0 => {
            let found = format!(
                "{stepped_over} commits have events that cannot be published: they are stepped over, and members read them from Postgres"
            );
            let remedy = "look for \"stepped over\" in the logs of the workers, which name the events; where messages were larger than \
                          max_payload of NATS or max_msg_size of the stream, raise that: they are tried again";
            Ok(Check::warn(NAME, address, found, remedy))
        }
        _ => Ok(Check::ok(NAME, address, "what was committed is published")),
    }
}

#[cfg(test)]
mod tests;
