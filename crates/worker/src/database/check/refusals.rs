//! Why there is no connection to Postgres, and what to do.

use std::io::ErrorKind;

use confab_protocol::check::Check;

use crate::error::Error;

/// The check of a server that could not be connected to.
pub(super) fn unreached(error: &sqlx::Error, address: &str) -> Check {
    let (found, remedy) = match error {
        sqlx::Error::Database(database) => by_code(database.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => (
            "Postgres is not reached: nothing listens at its address",
            "start Postgres, or correct host and port in CONFAB_DATABASE_URL",
        ),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::TimedOut => (
            "Postgres does not answer in time",
            "correct host and port in CONFAB_DATABASE_URL, or see that a firewall lets this host pass",
        ),
        sqlx::Error::Io(_) => (
            "Postgres is not reached",
            "correct host and port in CONFAB_DATABASE_URL, or the name service",
        ),
        sqlx::Error::Tls(_) => (
            "the encrypted connection to Postgres fails",
            "compare sslmode and sslrootcert in CONFAB_DATABASE_URL with the server's certificate",
        ),
        sqlx::Error::Protocol(_) => (
            "what listens at the address of Postgres is something else",
            "correct host and port in CONFAB_DATABASE_URL: Postgres listens on 5432 by default",
        ),
        _ => (
            "Postgres cannot be connected to",
            "correct CONFAB_DATABASE_URL, or see the log of Postgres",
        ),
    };
    Check::fail("postgres", address, found, remedy).because(error)
}

/// The check of a server that was connected to, and did not answer a question about itself.
pub(super) fn unanswered(error: &Error, address: &str) -> Check {
    let is_denied = matches!(error, Error::Postgres(sqlx::Error::Database(database))
        if database.code().as_deref() == Some("42501"));
    let (name, found, remedy) = match is_denied {
        true => (
            "postgres.privileges",
            "the role may not read confab's tables",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO the role, or run `confab migrate` as it",
        ),
        false => (
            "postgres",
            "Postgres does not answer a question about itself",
            "look into the log of Postgres for the cause",
        ),
    };
    Check::fail(name, address, found, remedy).because(error)
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
fn by_code(code: &str) -> (&'static str, &'static str) {
    match code {
        "28P01" => (
            "Postgres refuses the password",
            "correct user and password in CONFAB_DATABASE_URL; reserved characters stand there as %40 and the like",
        ),
        "28000" => (
            "Postgres refuses the user",
            "correct the user in CONFAB_DATABASE_URL, or let pg_hba.conf allow it from this host",
        ),
        "3D000" => (
            "the database does not exist on the server",
            "CREATE DATABASE, then `confab migrate`; or correct the name at the end of CONFAB_DATABASE_URL",
        ),
        "53300" => (
            "Postgres has no connection left",
            "raise max_connections, or the limit of the role or database, or end sessions that nobody needs (pg_stat_activity)",
        ),
        "57P03" => (
            "Postgres starts, stops or recovers",
            "wait; its log says how far it is",
        ),
        "42501" => (
            "the role may not connect to the database",
            "GRANT CONNECT ON DATABASE … TO the role of CONFAB_DATABASE_URL",
        ),
        "08P01" => (
            "what listens at the address of Postgres speaks its protocol only in part",
            "let CONFAB_DATABASE_URL name Postgres itself, not a pooler",
        ),
        _ => (
            "Postgres refuses the connection",
            "see the log of Postgres, and correct CONFAB_DATABASE_URL",
        ),
    }
}
