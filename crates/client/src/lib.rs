//! A client of confab: HTTP and WebSocket, for programs, tests and the terminal.
//!
//! [`Http`] makes the calls of the HTTP contract, [`Ws`] is one WebSocket after its welcome, [`Session`] is one
//! connection with acknowledgements and with events in order, each once, and [`Resuming`] is what most programs want: a
//! session that goes on at another gateway when its connection ends.

mod error;
mod http;
mod resuming;
mod session;
#[cfg(test)]
mod testing;
mod ws;

pub use error::{ClientError, Problem};
pub use http::{
    ConversationFilter, ConversationPage, ConversationView, EventPage, Http, MessageFilter,
    MessagePage, NewConversation, NewMembers, NewMessage, NewRevocation, ParticipantFilter,
    ParticipantPage, Presences, Removal, Replayable, Response,
};
pub use resuming::{Change, Changes, ResumeError, ResumeOptions, Resuming, TokenSource};
pub use session::{Events, Notice, Pending, SendError, Session, Stored};
pub use ws::{Closed, Encoding, Options, TokenIn, Ws, WsError, WsReceiver, WsSender};
