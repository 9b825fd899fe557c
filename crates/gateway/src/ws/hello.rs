//! The first frame: who the client is, and what it holds.

use std::collections::BTreeMap;

use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{ClientFrame, Hello, Seen};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::limits;
use tokio::time::Instant;

use super::codec::{Decoded, decode};
use super::connection::{Connection, End};
use super::ending::{drained, goaway};
use super::socket::{Limits, Message};
use super::{Sockets, verify};
use crate::limits::connects::Kind;
use crate::limits::{CONNECT_PRICE, OpeningPermit, UserConnection, price_of_positions};
use crate::sessions::records::Token;

/// A client that said hello.
pub(super) struct HelloAccepted {
    pub(super) caller: Caller,
    pub(super) hello: Hello,
    /// What it holds, from hello or from the `seen` behind it.
    pub(super) seen: BTreeMap<ConversationId, Seq>,
}

/// Pings and pongs that a client may send before its hello.
const MAX_CONTROL_FRAMES: usize = 16;

/// A client whose turn it is to open its session.
pub(super) struct SlotGranted {
    /// Its place among the connections of its user.
    pub(super) place: UserConnection,
    /// Its place among those of them that open.
    pub(super) opening: OpeningPermit,
}

/// Waits for the hello, and for the `seen` that it announces.
///
/// # Errors
/// How the connection ends when none comes in time, or it is refused.
pub(super) async fn greet(
    sockets: &Sockets,
    connection: &mut Connection,
    from_header: Option<Caller>,
) -> Result<HelloAccepted, End> {
    let deadline = Instant::now() + sockets.limits.hello;
    let ClientFrame::Hello(mut hello) = connection
        .frame_by(deadline, sockets, from_header.as_ref())
        .await?
    else {
        return Err(refused(
            connection,
            Failure::field("/type", "must be hello, first of all"),
        ));
    };
    let caller = match (from_header, hello.token.take()) {
        (Some(caller), None) => caller,
        (None, Some(token)) => {
            let caller = verify(sockets, &token).await.and_then(|caller| {
                sockets.rates.charge_frame(&caller, CONNECT_PRICE)?;
                Ok(caller)
            });
            caller.map_err(|failure| refused(connection, failure))?
        }
        (None, None) => return Err(refused(connection, Failure::of(Code::MissingToken))),
        (Some(_), Some(_)) => {
            return Err(refused(
                connection,
                Failure::field("/token", "was given in the header already"),
            ));
        }
    };
    connection
        .reader
        .set_limits(Limits::bytes(limits::MAX_FRAME_BYTES));
    let mut seen = hello.seen.take().unwrap_or_default();
    if hello.seen_follows == Some(true) {
        let ClientFrame::Seen(more) = connection
            .frame_by(deadline, sockets, Some(&caller))
            .await?
        else {
            return Err(refused(
                connection,
                Failure::field("/type", "must be seen, as hello announced"),
            ));
        };
        seen.extend(more.positions);
    }
    if seen.len() > limits::MAX_SEEN_CONVERSATIONS {
        let failure = Failure::field("/positions", Seen::too_many());
        return Err(refused(connection, failure));
    }
    // What belongs to a connection is let in with it.
    sockets.rates.take(&caller, price_of_positions(seen.len()));
    Ok(HelloAccepted {
        caller,
        hello,
        seen,
    })
}

/// Waits for the turn of a client that said hello.
///
/// # Errors
/// How the connection ends when too many come, or the gateway drains meanwhile.
pub(super) async fn arrive(
    sockets: &Sockets,
    connection: &Connection,
    greeted: &HelloAccepted,
) -> Result<SlotGranted, End> {
    let HelloAccepted { caller, hello, .. } = greeted;
    let token = hello.resume_token.as_deref().and_then(Token::parse);
    let kind = match token {
        Some(_) if sockets.users.resumes_well(caller) => Kind::Resume,
        // Whose tokens resumed nothing lately comes before nobody.
        Some(_) | None => Kind::Fresh,
    };
    let takes_over = token.is_some_and(|token| {
        let sessions = sockets.authenticator.sessions();
        sessions.has(&caller.tenant, &caller.user, token.session())
    });
    let admitting = async {
        let place = sockets.users.connect(caller, takes_over)?;
        let opening = place.open().await?;
        sockets.arrivals.admit(kind, &caller.tenant).await?;
        Ok(SlotGranted { place, opening })
    };
    let admitted = tokio::select! {
        admitted = admitting => admitted,
        () = drained(sockets) => return Err(goaway(sockets, connection)),
    };
    admitted.map_err(|failure: Failure| {
        let code = failure.code;
        connection.answer_error(hello.id.clone(), failure);
        End::of(code)
    })
}

/// The connection ends with an error frame before the close frame.
fn refused(connection: &Connection, failure: Failure) -> End {
    let code = failure.code;
    connection.answer_error(None, failure);
    End::of(code)
}

impl Connection {
    /// Reads a frame, a large one in its turn: before its user is known none is large.
    async fn parse(
        &self,
        message: Message,
        sockets: &Sockets,
        caller: Option<&Caller>,
    ) -> Result<Decoded, End> {
        let (encoding, bytes) = (self.encoding, message.payload_bytes());
        let Some(caller) = caller else {
            return Ok(self.decode(&message));
        };
        let parse = move |message: &Message| decode(encoding, message);
        let owner = caller.owner();
        let parsed = sockets.parsing.parse(&owner, (message, bytes), parse).await;
        let decoded = parsed.map_err(|failure| refused(self, failure))?;
        self.heard(&decoded, bytes);
        Ok(decoded)
    }

    /// The next frame of ours, whatever pings come between.
    async fn frame_by(
        &mut self,
        deadline: Instant,
        sockets: &Sockets,
        caller: Option<&Caller>,
    ) -> Result<ClientFrame, End> {
        let mut control_frames = 0;
        loop {
            let next = tokio::time::timeout_at(deadline, self.reader.next()).await;
            let message = next
                .map_err(|_late| End::of(Code::HelloTimeout))?
                .map_err(|e| End::from(&e))?;
            match message {
                Message::Ping(_) | Message::Pong(_) => {
                    control_frames += 1;
                    if control_frames > MAX_CONTROL_FRAMES {
                        return Err(End::of(Code::BadFrames));
                    }
                }
                Message::Close { .. } => return Err(End::Closed),
                Message::Text(_) | Message::Binary(_) => {
                    let parsing = self.parse(message, sockets, caller);
                    let parsed = tokio::time::timeout_at(deadline, parsing).await;
                    return match parsed.map_err(|_late| End::of(Code::HelloTimeout))?? {
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
