//! What can go wrong with NATS.

use confab_protocol::wire::WireError;

/// An error of async-nats, whose types all differ; only its text is of use.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// NATS could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The settings name no usable server or credentials.
    #[error("NATS settings: {0}")]
    Settings(String),
    /// The server is not reached at the moment.
    #[error("NATS is not connected")]
    Disconnected,
    /// No answer came in time.
    #[error("NATS did not answer in time")]
    Timeout,
    /// The stream is not there.
    #[error("the stream does not exist")]
    NoStream,
    /// The message is larger than NATS or the stream takes.
    #[error("NATS takes no message of this size")]
    Refused,
    /// The server does not let this process subscribe a subject.
    #[error("NATS does not permit this user to subscribe {0}")]
    Forbidden(String),
    /// What a peer sent is not of this wire.
    #[error("internal wire")]
    Wire(#[from] WireError),
    /// NATS refused, or the connection failed.
    #[error("NATS: {what}")]
    Nats {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: Source,
    },
}

impl BusError {
    /// The mapping of a library error while doing `what`.
    pub(crate) fn nats<E: Into<Source>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Nats {
            what,
            source: source.into(),
        }
    }
}

/// A request to a worker has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// NATS is away; the request was not handed over.
    #[error("NATS is not connected")]
    Disconnected,
    /// Nobody listens on the subject; the request reached no worker.
    #[error("no worker listens")]
    NoResponders,
    /// The worker does not take the request: it cannot read it, or is of another version. Nothing was done.
    #[error("a worker refused the request: {0}")]
    Refused(String),
    /// No answer came in time: the outcome is unknown.
    #[error("no worker answered in time")]
    Timeout,
    /// The request does not fit one NATS message; it was not handed over.
    #[error("the request is larger than a NATS message")]
    TooLarge,
    /// The answer is not of this wire: the outcome is unknown.
    #[error("internal wire")]
    Wire(#[from] WireError),
    /// The connection failed meanwhile: the outcome is unknown.
    #[error("NATS failed during the request")]
    Failed(#[source] Source),
}

impl RpcError {
    /// Returns true if it is certain that no worker has the request.
    #[must_use]
    pub const fn not_handed_over(&self) -> bool {
        matches!(
            self,
            Self::Disconnected | Self::NoResponders | Self::TooLarge | Self::Refused(_)
        )
    }
}
