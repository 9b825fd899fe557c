//! What the bench measures alone: the worker's own statements over its own connections, and nothing around them.

use std::time::Duration;

use confab_protocol::command::{Caller, SendMessage};
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{PgPool, Row as _};

use crate::commit::bind;
use crate::database::{self, Pool, bounded};
use crate::error::Error;
use crate::messages;
use crate::settings::Settings;

/// What Postgres shows the connections under.
const PURPOSE: &str = "bench";
/// How long a connection is waited for. Nobody waits for an answer, as a worker's client does, and a busy machine opens one slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A page of messages, as [`crate::reads`] reads it: $1 conversation, $2 from, $3 below, $4 sender, $5 kind, $6 how many, $7 bytes.
pub const PAGE: &str = crate::reads::PAGE;

/// Batches of messages, committed as a worker commits them.
#[derive(Debug, Clone)]
pub struct Commits(Pool);

impl Commits {
    /// Over up to `connections`.
    ///
    /// # Errors
    /// When the database URL is not usable.
    pub fn new(settings: &Settings, connections: u32) -> Result<Self, Error> {
        let connector = database::connector(settings, PURPOSE)?;
        let siblings = &database::Siblings::default();
        let pool = Pool::among(siblings, connector, connections, CONNECTION_TIMEOUT);
        Ok(Self(pool))
    }

    /// Commits a batch, and says how many of it were stored.
    ///
    /// # Errors
    /// When Postgres is away or refuses the batch.
    pub async fn append(&self, batch: Vec<(Caller, SendMessage)>) -> Result<usize, Error> {
        let appends = batch.into_iter();
        let appends = appends.filter_map(|(caller, message)| messages::send(caller, message).ok());
        let appends: Vec<_> = appends.collect();
        let appends: Vec<_> = appends.iter().collect();
        let mut connection = self.0.acquire().await?;
        let rows = bounded(bind(&appends).fetch_all(&mut *connection)).await?;
        connection.release();
        let is_stored =
            |row: &_| PgRow::try_get::<&str, _>(row, "outcome").map(|it| it == "stored");
        let stored = rows.iter().map(is_stored).collect::<Result<Vec<_>, _>>()?;
        Ok(stored.into_iter().filter(|stored| *stored).count())
    }
}

/// Connections with a worker's settings.
///
/// # Errors
/// When the database URL is not usable.
pub fn pool(settings: &Settings, connections: u32) -> Result<PgPool, Error> {
    let options = database::options(settings, PURPOSE)?;
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECTION_TIMEOUT)
        .connect_lazy_with(options))
}
