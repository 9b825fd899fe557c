use std::time::Duration;

/// A measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS, Postgres or a process of confab's did not start or end as it should.
    #[error("the stack of the measurement")]
    Stack(#[from] confab_stack::Error),
    /// A token could not be made.
    #[error("a token for the load")]
    Key(#[from] confab_auth::mint::KeyError),
    /// An HTTP call to a gateway failed.
    #[error("a call to a gateway")]
    Http(#[from] confab_client::ClientError),
    /// A WebSocket of the load could not be opened, or broke.
    #[error("a WebSocket of the load: {0}")]
    Socket(String),
    /// A file, a folder or the system's processes.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was measured has no form in JSON, or a given file is none of the bench's.
    #[error("JSON")]
    Json(#[from] serde_json::Error),
    /// Postgres, where a measurement asks it itself.
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
    /// A part of a worker's that is measured alone.
    #[error("a part of a worker")]
    Worker(#[from] confab_worker::Error),
    /// A part of the bus that is measured alone.
    #[error("a part of the bus")]
    Bus(#[from] confab_bus::BusError),
    /// NATS, where a measurement asks it itself.
    #[error("NATS: {0}")]
    Nats(String),
    /// What is sent has no form on the wire between gateways and workers.
    #[error("the wire")]
    Wire(#[from] confab_protocol::wire::WireError),
    /// Something did not come within its time.
    #[error("{what} did not come within {within:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
    /// The load cannot be put, or what came of it is not what was asked for.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// An error of the system's, with what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A task of the load's that did not end as it should.
    pub(crate) fn panicked(error: tokio::task::JoinError) -> Self {
        Self::Failed(error.to_string())
    }

    /// An error of the NATS library's, with what was tried.
    pub(crate) fn nats<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Nats(format!("{what}: {error}"))
    }
}
