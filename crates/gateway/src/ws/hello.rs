//! The first frame: who the client is, and what it holds.

use std::collections::BTreeMap;

use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{ClientFrame, Hello};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::limits;
use tokio::time::Instant;

use super::codec::Decoded;
use super::connection::{Connection, End};
use super::socket::{Limits, Message};
use super::{Sockets, verify};

/// A client that said hello.
pub(super) struct Greeted {
    pub(super) caller: Caller,
    pub(super) hello: Hello,
    /// What it holds, from hello or from the `seen` behind it.
    pub(super) seen: BTreeMap<ConversationId, Seq>,
}

/// Waits for the hello, and for the `seen` that it announces.
///
/// # Errors
/// How the connection ends when none comes in time, or it is refused.
pub(super) async fn greet(
    sockets: &Sockets,
    connection: &mut Connection,
    from_header: Option<Caller>,
) -> Result<Greeted, End> {
    let deadline = Instant::now() + sockets.limits.hello;
    let ClientFrame::Hello(mut hello) = connection.frame_by(deadline).await? else {
        return Err(refused(
            connection,
            Failure::field("/type", "must be hello, first of all"),
        ));
    };
    let caller = match (from_header, hello.token.take()) {
        (Some(caller), None) => caller,
        (None, Some(token)) => match verify(sockets, &token).await {
            Ok(caller) => caller,
            Err(failure) => return Err(refused(connection, failure)),
        },
        (None, None) => return Err(refused(connection, Failure::of(Code::MissingToken))),
        (Some(_), Some(_)) => {
            return Err(refused(
                connection,
                Failure::field("/token", "was given in the header already"),
            ));
        }
    };
    connection.reader.set_limits(Limits::bytes(limits::FRAME));
    let mut seen = hello.seen.take().unwrap_or_default();
    if hello.seen_follows == Some(true) {
        let ClientFrame::Seen(more) = connection.frame_by(deadline).await? else {
            return Err(refused(
                connection,
                Failure::field("/type", "must be seen, as hello announced"),
            ));
        };
        seen.extend(more.positions);
    }
    Ok(Greeted {
        caller,
        hello,
        seen,
    })
}

/// The connection ends with an error frame before the close frame.
fn refused(connection: &Connection, failure: Failure) -> End {
    let code = failure.code;
    connection.answer_error(None, failure);
    End::of(code)
}

impl Connection {
    /// The next frame of ours, whatever pings come between.
    async fn frame_by(&mut self, deadline: Instant) -> Result<ClientFrame, End> {
        loop {
            let next = tokio::time::timeout_at(deadline, self.reader.next()).await;
            let message = next
                .map_err(|_late| End::of(Code::HelloTimeout))?
                .map_err(|e| End::from(&e))?;
            match message {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close { .. } => return Err(End::Closed),
                Message::Text(_) | Message::Binary(_) => {
                    return match self.decode(&message) {
                        Decoded::Frame(frame) => Ok(frame),
                        Decoded::Bad(bad) => {
                            self.answer_error(bad.id, bad.failure);
                            Err(End::of(Code::BadFrames))
                        }
                        Decoded::WrongKind => Err(End::wrong_kind()),
                    };
                }
            }
        }
    }
}
