//! A client of confab: HTTP and WebSocket, for programs, tests and the terminal.
//!
//! [`Http`] makes the calls of the HTTP contract, [`Ws`] is one WebSocket after its welcome, and [`Session`] is what
//! most programs want: sends with their acknowledgements, and the events in order, each once.

mod error;
mod http;
mod session;
mod ws;

pub use error::{ClientError, Problem};
pub use http::{
    ConversationFilter, ConversationPage, ConversationView, EventPage, Http, MessageFilter,
    MessagePage, NewConversation, NewMembers, NewMessage, NewRevocation, ParticipantFilter,
    ParticipantPage, Removal, Replayable, Response,
};
pub use session::{Events, Notice, Pending, SendError, Session, Stored};
pub use ws::{Closed, Encoding, Options, TokenIn, Ws, WsError, WsReceiver, WsSender};
