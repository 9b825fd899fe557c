//! A worker's settings.

use std::path::PathBuf;
use std::time::Duration;

use confab_protocol::query::QueryKind;

use crate::WAITING_PLACES;
use crate::planner::Caps;

/// The headings of the flags in `--help`.
mod headings {
    pub(super) const REQUIRED: &str = "Required";
    pub(super) const POSTGRES: &str = "Postgres";
    pub(super) const COMMITS: &str = "Commits";
    pub(super) const QUEUES: &str = "Queues";
    pub(super) const TIMES: &str = "Times";
}

/// Where Postgres is, and as whom to connect. Files are read again for each connection, those that the URL names for certificates as well,
/// so that what is in them can be replaced while the process runs.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub struct DatabaseSettings {
    /// Required: the Postgres primary, postgres://user:password@host:port/database.
    ///
    /// With `?sslmode=verify-full` over TLS. Standbys are refused at the first write: their commits come in another order.
    #[arg(
        long,
        env = "CONFAB_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = headings::REQUIRED
    )]
    pub database_url: String,
    /// File with the user's name, instead of the one in the URL; read again at each connection.
    #[arg(
        long,
        env = "CONFAB_DATABASE_USER_FILE",
        value_name = "PATH",
        help_heading = headings::POSTGRES
    )]
    pub database_user_file: Option<PathBuf>,
    /// File with the user's password, instead of the one in the URL; read again at each connection.
    #[arg(
        long,
        env = "CONFAB_DATABASE_PASSWORD_FILE",
        value_name = "PATH",
        help_heading = headings::POSTGRES
    )]
    pub database_password_file: Option<PathBuf>,
}

impl DatabaseSettings {
    /// Those of a URL that says all.
    #[must_use]
    pub fn of_url(database_url: String) -> Self {
        Self {
            database_url,
            database_user_file: None,
            database_password_file: None,
        }
    }
}

/// Secrets stand in it.
impl std::fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseSettings").finish_non_exhaustive()
    }
}

/// What a worker is told at its start.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Postgres.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// NATS.
    #[command(flatten)]
    pub nats: confab_bus::Settings,
    /// Messages that are committed together at most; 1 turns group commit off.
    #[arg(
        long,
        env = "CONFAB_BATCH_EVENTS",
        value_name = "NUMBER",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=1000),
        help_heading = headings::COMMITS
    )]
    pub batch_events: u32,
    /// Bytes of messages that are committed together at most; a larger one is committed alone.
    #[arg(
        long,
        env = "CONFAB_BATCH_BYTES",
        value_name = "BYTES",
        default_value_t = 1 << 20,
        help_heading = headings::COMMITS
    )]
    pub batch_bytes: usize,
    /// Batches that are committed at the same time; each has a connection.
    ///
    /// A second one is used only while batches are full.
    #[arg(
        long,
        env = "CONFAB_COMMIT_LANES",
        value_name = "NUMBER",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=64),
        help_heading = headings::COMMITS
    )]
    pub commit_lanes: u32,
    /// Commands other than messages that are carried out at the same time; each has a connection.
    #[arg(
        long,
        env = "CONFAB_COMMAND_SLOTS",
        value_name = "NUMBER",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=64),
        help_heading = headings::COMMITS
    )]
    pub command_slots: u32,
    /// Queries for pages that are answered at the same time; each has a connection.
    ///
    /// Half as many more, and two at least, are for what sessions need.
    #[arg(
        long,
        env = "CONFAB_QUERIES",
        value_name = "NUMBER",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=256),
        help_heading = headings::QUEUES
    )]
    pub queries: u32,
    /// Sends that may wait, and as many other commands.
    ///
    /// Half of them of one tenant, a quarter of one user; more are refused with OVERLOADED, as are those that could not be served in time.
    #[arg(
        long,
        env = "CONFAB_QUEUE_EVENTS",
        value_name = "NUMBER",
        default_value_t = 8192,
        help_heading = headings::QUEUES
    )]
    pub queue_events: usize,
    /// Bytes of them that may wait.
    #[arg(
        long,
        env = "CONFAB_QUEUE_BYTES",
        value_name = "BYTES",
        default_value_t = 64 << 20,
        help_heading = headings::QUEUES
    )]
    pub queue_bytes: usize,
    /// Time after which Postgres ends a statement.
    #[arg(
        long,
        env = "CONFAB_STATEMENT_TIMEOUT_MS",
        value_name = "MILLISECONDS",
        default_value_t = 8000,
        help_heading = headings::TIMES
    )]
    pub statement_timeout_ms: u64,
    /// Time that a command waits for another's lock before others have their turn.
    ///
    /// In one of the places for that.
    #[arg(
        long,
        env = "CONFAB_LOCK_TIMEOUT_MS",
        value_name = "MILLISECONDS",
        default_value_t = 2000,
        help_heading = headings::TIMES
    )]
    pub lock_timeout_ms: u64,
    /// Time that a stopping worker takes to finish what it has begun.
    #[arg(
        long,
        env = "CONFAB_WORKER_DRAIN",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::TIMES
    )]
    pub drain: u64,
}

impl Settings {
    pub(crate) const fn caps(&self) -> Caps {
        Caps {
            batch_events: self.batch_events as usize,
            batch_bytes: self.batch_bytes,
            lanes: self.commit_lanes as usize,
            slots: self.command_slots as usize,
            places: WAITING_PLACES as usize,
            queue_events: self.queue_events,
            queue_bytes: self.queue_bytes,
        }
    }

    /// Queries of a kind that are answered at the same time.
    pub(crate) const fn query_slots(&self, kind: QueryKind) -> usize {
        let sessions = self.queries / 2;
        let slots = match kind {
            QueryKind::Page => self.queries,
            QueryKind::Session if sessions < 2 => 2,
            QueryKind::Session => sessions,
        };
        slots as usize
    }

    /// Connections that queries have.
    pub(crate) fn read_connections(&self) -> u32 {
        let slots = QueryKind::ALL.map(|kind| self.query_slots(kind));
        u32::try_from(slots.iter().sum::<usize>()).unwrap_or(u32::MAX)
    }

    pub(crate) const fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}
