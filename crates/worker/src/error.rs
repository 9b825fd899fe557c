//! What can go wrong in a worker, and what an error of Postgres means for the command that met it.

use confab_protocol::error::{Code, Failure};

use crate::database::AcquireError;

/// The worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database URL is not one.
    #[error("the database URL is not usable")]
    DatabaseUrl(#[source] sqlx::Error),
    /// Postgres failed.
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("migrations")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// No connection to a writable primary.
    #[error("no connection to Postgres")]
    Acquire(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What stands before Postgres is none that a worker works with.
    #[error(
        "the pooler before Postgres cannot be used, since {0}: let workers connect to Postgres itself"
    )]
    Pooler(&'static str),
    /// The schema is older than this version needs it.
    #[error("the schema is of an older version: `confab migrate` comes first")]
    Outdated,
    /// NATS failed.
    #[error("NATS")]
    Bus(#[from] confab_bus::BusError),
    /// A long-lived task ended.
    #[error("the task {0} ended")]
    TaskEnded(&'static str),
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        Self::Acquire(Box::new(error))
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It was decided so.
    #[error("refused: {0}")]
    Refused(Failure),
    /// Postgres failed.
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
    /// Another creation with its key runs.
    #[error("the key is in use")]
    KeyInUse(#[source] sqlx::Error),
    /// What is stored cannot be read, or what is to be stored not written.
    #[error("stored JSON")]
    Json(#[from] serde_json::Error),
    /// What is stored is not what this version stores.
    #[error("stored data: {0}")]
    Stored(&'static str),
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl CommandError {
    /// Whether the connection that met the error must not be used again.
    pub(crate) fn poisons_connection(&self) -> bool {
        matches!(self, Self::Postgres(error) if poisons_connection(error))
    }

    /// What the caller is told once trying again is over; `unknown` when an earlier try may have committed.
    pub(crate) fn failure(self, unknown: bool) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Postgres(error) => match meaning(&error) {
                Meaning::Data => Failure::new(Code::Validation, "Postgres cannot store this"),
                Meaning::Defect => Failure::of(Code::Internal),
                Meaning::Locked if !unknown => locked(),
                Meaning::Again | Meaning::NotExecuted if !unknown => {
                    Failure::new(Code::Unavailable, "Postgres is away; nothing was changed")
                        .retry_after(1000)
                }
                Meaning::Locked | Meaning::Again | Meaning::NotExecuted | Meaning::Unknown => {
                    Failure::of(Code::Timeout)
                }
            },
            Self::KeyInUse(_) if unknown => Failure::of(Code::Timeout),
            Self::KeyInUse(_) => Failure::of(Code::IdempotencyInProgress).retry_after(1000),
            Self::Json(_) | Self::Stored(_) => Failure::of(Code::Internal),
        }
    }
}

/// What a caller is told whose command was only ever left out.
pub(crate) fn locked() -> Failure {
    Failure::new(
        Code::Overloaded,
        "what it changes is locked; nothing was changed",
    )
    .retry_after(1000)
}

/// What an error of Postgres means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The data is refused; trying again changes nothing.
    Data,
    /// It was rolled back and may succeed when tried again.
    Again,
    /// The same, for a lock that another holds.
    Locked,
    /// It did not reach Postgres.
    NotExecuted,
    /// The connection was lost: it may have committed.
    Unknown,
    /// The statement itself is wrong, or the schema is another.
    Defect,
}

/// The meaning by SQLSTATE (PostgreSQL documentation, appendix A).
pub(crate) fn meaning(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(code)
                if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") =>
            {
                Meaning::Data
            }
            // Deadlock, lock not available.
            Some("40P01" | "55P03") => Meaning::Locked,
            // Serialization failure, query canceled (our own statement timeout).
            Some("40001" | "57014") => Meaning::Again,
            // A standby that cannot write, a server that starts, too little of connections, memory or disk.
            Some(code) if code == "25006" || code == "57P03" || code.starts_with("53") => {
                Meaning::Again
            }
            // The connection ended, at a moment that is not known.
            Some(code) if ends_connection(code) => Meaning::Unknown,
            _ => Meaning::Defect,
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Meaning::NotExecuted,
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::RowNotFound => Meaning::Defect,
        _ => Meaning::Unknown,
    }
}

/// Whether the connection that met the error must not be used again: it has ended, or its server stops or cannot write.
pub(crate) fn poisons_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code();
            code.is_some_and(|code| code == "25006" || ends_connection(&code))
        }
        // It never reached the connection.
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => false,
        _ => true,
    }
}

/// Whether Postgres ends the connection with an error of this SQLSTATE: a shutdown, a lost client, too long in a transaction, idle (25P03) or
/// in all (25P04).
fn ends_connection(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08") || matches!(code, "25P03" | "25P04")
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, PgConnection};

    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn connection_that_postgres_ends_is_not_used_again() {
        let fixture = Fixture::new().await;
        let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
        for (code, means, is_poisoned) in [
            ("25P03", Meaning::Unknown, true),
            ("25P04", Meaning::Unknown, true),
            ("57P01", Meaning::Unknown, true),
            ("57P05", Meaning::Unknown, true),
            ("08006", Meaning::Unknown, true),
            ("25006", Meaning::Again, true),
            ("40001", Meaning::Again, false),
            ("55P03", Meaning::Locked, false),
            ("22000", Meaning::Data, false),
        ] {
            let raise = format!("do $$ begin raise 'told' using errcode = '{code}'; end $$");
            let raise = sqlx::AssertSqlSafe(raise);
            let raised = sqlx::raw_sql(raise).execute(&mut connection).await;
            let error = raised.unwrap_err();
            let told = (meaning(&error), poisons_connection(&error));
            assert_eq!(told, (means, is_poisoned), "{code}");
        }
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed] {
            let told = (meaning(&error), poisons_connection(&error));
            assert_eq!(told, (Meaning::NotExecuted, false));
        }
    }
}
