use std::time::Duration;

use confab_protocol::event::Event;
use confab_protocol::frame::{
    ErrorFrame, Goaway, PresenceSignal, PresenceSnapshot, ReceiptSignal, Truncated, TypingSignal,
};
use confab_protocol::ids::SessionId;
use tokio::sync::mpsc;

use crate::ws::{Closed, WsError};

/// A change of a session, in the order received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A gateway welcomed the session. Where no [`Change::Disconnected`] stands before a further one, the session moved
    /// over without a break.
    Connected {
        /// Which gateway: its URL.
        url: String,
        /// True if the session of before goes on; false for the first.
        resumed: bool,
        /// Why it does not, where that was asked for.
        reason: Option<String>,
        /// The session.
        session_id: SessionId,
        /// How many events are replayed.
        replayed: u64,
    },
    /// The connection ended, or came to nothing; the session goes on elsewhere.
    Disconnected(Closed),
    /// An event, each once and in order (docs/protocol/delivery.md, "Order and acknowledgements").
    Event(Event),
    /// A range that is not told: the program reads it over HTTP, here, before it takes the next change, and then says
    /// [`crate::Resuming::seen`]. It is told again after each reconnect until then. Where events of it come after all, they are
    /// those that a program ignores which goes by that rule.
    Truncated(Truncated),
    /// A member types, or stopped to.
    Typing(TypingSignal),
    /// A member has read.
    Receipt(ReceiptSignal),
    /// A user came, went away or left.
    Presence(PresenceSignal),
    /// Who is there, where the hello asked for it.
    PresenceSnapshot(PresenceSnapshot),
    /// The gateway asked to connect elsewhere, which is done.
    Goaway(Goaway),
    /// A refusal that answers no send.
    Error(ErrorFrame),
    /// The end: nothing follows.
    Closed(Closed),
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// No gateway was named.
    #[error("no gateway is named")]
    NoGateway,
    /// There is no token.
    #[error("no token")]
    Token(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The last try of the time that there was, or one that no further could mend.
    #[error("no gateway welcomes")]
    Ws(#[from] WsError),
    /// No try ended in time.
    #[error("no gateway welcomes within {0:?}")]
    Timeout(Duration),
}

/// The hearing side. Who takes its changes too slowly stops the reading of the socket, and with it the answers; who drops
/// it hears no more, and sends on.
#[derive(Debug)]
pub struct Changes {
    changes: mpsc::Receiver<Change>,
}

impl Changes {
    pub(super) const fn of(changes: mpsc::Receiver<Change>) -> Self {
        Self { changes }
    }

    /// Waits for what happens next; nothing comes after [`Change::Closed`].
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}
