//! One connection's life: hello, then everything that can wake it, in one loop.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use confab_auth::Caller;
use confab_protocol::command::{self, Command, Outcome, Request, SendAnswer, SendMessage};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{
    Ack, ClientFrame, ErrorFrame, Goaway, GoawayReason, Send, ServerFrame, Welcome, WelcomeLimits,
};
use confab_protocol::ids::{ClientId, ConversationId, SessionId};
use confab_protocol::json::JsonText;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Sockets;
use super::codec::{Decoded, decode, encode};
use super::frames::Frame;
use super::hello::{Greeted, greet, truncated};
use super::meter::{Meter, Refused};
use super::outbox::Outbox;
use super::sends::Sends;
use super::socket::{self, Limits, Message, ReadError, Reader, Writer};
use super::upgrade::Encoding;
use crate::hub::Account;
use crate::sessions::Registered;

/// How long the closing handshake may take.
const CLOSING: Duration = Duration::from_secs(2);
/// Answers and sends that may wait before the socket is read no further, in bytes.
const PENDING: usize = 1024 * 1024;
/// What one write takes at most, in bytes.
const WRITE: usize = 128 * 1024;
/// Bad frames within [`BAD_FRAMES_WITHIN`] that end the connection.
const BAD_FRAMES: usize = 10;
const BAD_FRAMES_WITHIN: Duration = Duration::from_secs(60);

/// A socket with what waits for it.
pub(super) struct Connection {
    pub(super) reader: Reader<OwnedReadHalf>,
    writer: Writer<OwnedWriteHalf>,
    pub(super) encoding: Encoding,
    outbox: Arc<Outbox>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a close frame of the gateway's.
    Close(u16, &'static str),
    /// The client closed.
    Closed,
    /// The connection is lost.
    Lost,
}

impl End {
    pub(super) const fn of(code: Code) -> Self {
        Self::Close(code.close_code(), code.as_str())
    }

    pub(super) const fn wrong_kind() -> Self {
        Self::Close(1003, Code::Validation.as_str())
    }
}

impl From<&ReadError> for End {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Violation(_) => Self::Close(error.close_code(), error.code().as_str()),
            ReadError::Io(_) => Self::Lost,
            ReadError::Ended => Self::Closed,
        }
    }
}

/// Serves a connection from its upgrade to its end.
pub(super) async fn serve(
    sockets: &Sockets,
    stream: TcpStream,
    read_ahead: &[u8],
    encoding: Encoding,
    caller: Option<Caller>,
) {
    let limit = if caller.is_some() {
        confab_protocol::limits::FRAME
    } else {
        confab_protocol::limits::HELLO
    };
    let (reader, writer) = match socket::split(stream, read_ahead, Limits::bytes(limit)) {
        Ok(halves) => halves,
        Err(error) => {
            debug!(%error, "the socket was lost at once");
            return;
        }
    };
    let outbox = Outbox::new(encoding, sockets.limits.outbox_bytes);
    let outbox = Arc::new(outbox.counting(sockets.metrics.frames.clone()));
    let mut connection = Connection {
        reader,
        writer,
        encoding,
        outbox,
    };
    let opened = sockets.metrics.opened();
    let end = match greet(sockets, &mut connection, caller).await {
        Ok(greeted) => open_and_run(sockets, &mut connection, greeted).await,
        Err(end) => end,
    };
    drop(opened);
    connection.end(sockets, end).await;
}

async fn open_and_run(sockets: &Sockets, connection: &mut Connection, greeted: Greeted) -> End {
    let Greeted {
        caller,
        hello,
        seen,
    } = greeted;
    let account = Account {
        tenant: caller.tenant.clone(),
        user: caller.user.clone(),
    };
    let opening = sockets
        .fanout
        .open(account, Arc::clone(&connection.outbox), sockets.limits.open);
    let (key, heads) = match opening.await {
        Ok(opened) => opened,
        Err(failure) => {
            let code = failure.code;
            connection.answer_error(hello.id, failure);
            return End::of(code);
        }
    };
    let session_id = SessionId(Uuid::now_v7());
    let outbox = Arc::clone(&connection.outbox);
    let place = match sockets.admission.open(session_id, &caller, outbox) {
        Ok(place) => place,
        Err(failure) => {
            sockets.fanout.close(key).await;
            let code = failure.code;
            connection.answer_error(hello.id, failure);
            return End::of(code);
        }
    };
    info!(session.id = %session_id, tenant = %caller.tenant, user.id = %caller.user, "a session opened");
    let welcome = Welcome {
        id: hello.id,
        session_id,
        user_id: caller.user.clone(),
        resumed: false,
        reason: hello.resume_token.map(|_| "not_supported".to_owned()),
        replayed: 0,
        truncated: truncated(&seen, &heads),
        heads: (hello.heads == Some(true)).then(|| heads.into_iter().collect()),
        resume_token: None,
        resume_window_seconds: 0,
        heartbeat_seconds: sockets.limits.heartbeat.as_secs(),
        limits: WelcomeLimits::default(),
    };
    connection.welcome(welcome);
    let end = Session::new(sockets, caller, place).run(connection).await;
    sockets.fanout.close(key).await;
    info!(session.id = %session_id, ?end, "a session ended");
    end
}

impl Connection {
    fn welcome(&self, welcome: Welcome) {
        let welcome = ServerFrame::Welcome(Box::new(welcome));
        match encode(self.encoding, &welcome) {
            Ok(frame) => {
                self.outbox.metrics().told(&welcome, frame.as_bytes().len());
                self.outbox.start(frame);
            }
            Err(error) => warn!(%error, "a welcome cannot be encoded"),
        }
    }

    fn answer(&self, frame: &ServerFrame) {
        match encode(self.encoding, frame) {
            Ok(encoded) => {
                self.outbox.metrics().told(frame, encoded.as_bytes().len());
                self.outbox.push_answer(encoded);
            }
            Err(error) => warn!(%error, "an answer cannot be encoded"),
        }
    }

    /// Reads a frame, and counts it.
    pub(super) fn decode(&self, message: &Message) -> Decoded {
        let decoded = decode(self.encoding, message);
        let frame = match &decoded {
            Decoded::Frame(frame) => Some(frame),
            Decoded::Bad(_) | Decoded::WrongKind => None,
        };
        let bytes = match message {
            Message::Text(payload) | Message::Binary(payload) => payload.len(),
            _ => 0,
        };
        self.outbox.metrics().heard(frame, bytes);
        decoded
    }

    pub(super) fn answer_error(&self, id: Option<String>, failure: Failure) {
        self.answer(&ServerFrame::Error(ErrorFrame::new(
            id,
            failure,
            Uuid::now_v7().to_string(),
        )));
    }

    /// Writes the answers that still wait, and closes.
    async fn end(mut self, sockets: &Sockets, end: End) {
        sockets.metrics.ended(match end {
            End::Close(code, _) => code,
            End::Closed => 1000,
            End::Lost => 1006,
        });
        let frame = match end {
            End::Close(code, reason) => Frame::close(code, reason),
            End::Closed => Frame::close(1000, ""),
            End::Lost => return,
        };
        if let Ok(answers) = self.outbox.take(usize::MAX) {
            self.writer.push(answers);
        }
        if !socket::close(&mut self.reader, &mut self.writer, frame, CLOSING).await {
            debug!("the client did not close in time");
        }
    }
}

/// The answers to sends that went to a worker together.
type Answered = (
    ConversationId,
    Vec<(ClientId, String, Result<Outcome, Failure>)>,
);

/// An open session.
struct Session<'a> {
    sockets: &'a Sockets,
    caller: Caller,
    /// Its place among the open sessions.
    place: Registered,
    sends: Sends,
    on_the_way: FuturesUnordered<BoxFuture<'static, Answered>>,
    bad_frames: VecDeque<Instant>,
    meter: Meter,
    heard: Instant,
    taken: u64,
}

impl<'a> Session<'a> {
    fn new(sockets: &'a Sockets, caller: Caller, place: Registered) -> Self {
        Self {
            sockets,
            caller,
            place,
            sends: Sends::default(),
            on_the_way: FuturesUnordered::new(),
            bad_frames: VecDeque::new(),
            meter: Meter::new(sockets.rates.clone()),
            heard: Instant::now(),
            taken: 0,
        }
    }

    async fn run(mut self, connection: &mut Connection) -> End {
        let limits = &self.sockets.limits;
        let first = Instant::now() + limits.heartbeat.mul_f64(rand::random::<f64>());
        let mut heartbeat = interval_at(first, limits.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry = pin!(sleep_until(self.expiry()));
        let mut drain = pin!(drained(self.sockets));
        loop {
            let writing = connection.writer.stalled_since();
            let reads = connection.outbox.answer_bytes() + self.sends.bytes() < PENDING;
            let step = tokio::select! {
                () = &mut drain => Err(self.goaway(connection)),
                () = &mut expiry => Err(End::of(Code::TokenExpired)),
                () = stalled(writing, limits.stall) => Err(End::of(Code::SlowConsumer)),
                _ = heartbeat.tick() => self.beat(connection),
                written = connection.writer.flush(), if writing.is_some() => written.map_err(|_lost| End::Lost),
                () = connection.outbox.ready(), if writing.is_none() => take(connection),
                code = connection.outbox.closed(), if writing.is_some() => Err(End::of(code)),
                Some(answered) = self.on_the_way.next() => {
                    self.answer(connection, answered);
                    Ok(())
                }
                message = connection.reader.next(), if reads => match message {
                    Ok(message) => self.hear(connection, &message),
                    Err(error) => Err(End::from(&error)),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// When the token ends, with the clock skew that its verification allows.
    fn expiry(&self) -> Instant {
        let left =
            self.caller.expires_at + self.sockets.admission.leeway() - OffsetDateTime::now_utc();
        let left = Duration::try_from(left).unwrap_or_default();
        Instant::now() + left.min(Duration::from_secs(365 * 24 * 3600))
    }

    /// Pings; ends the connection of a client from which nothing came and that took nothing for two heartbeats.
    fn beat(&mut self, connection: &mut Connection) -> Result<(), End> {
        let now = Instant::now();
        if connection.writer.taken() != self.taken && connection.writer.stalled_since().is_some() {
            self.heard = now;
        }
        self.taken = connection.writer.taken();
        if now.duration_since(self.heard) > self.sockets.limits.heartbeat * 2 {
            return Err(End::of(Code::SlowConsumer));
        }
        connection.outbox.push_answer(Frame::ping(&[]));
        Ok(())
    }

    fn goaway(&self, connection: &Connection) -> End {
        let reconnect_after_ms = rand::random_range(0..1000);
        connection.answer(&ServerFrame::Goaway(Goaway {
            reason: GoawayReason::Drain,
            reconnect_after_ms,
        }));
        End::Close(1001, "DRAIN")
    }

    fn hear(&mut self, connection: &Connection, message: &Message) -> Result<(), End> {
        self.heard = Instant::now();
        self.place.seen();
        match message {
            Message::Ping(payload) => connection.outbox.push_answer(Frame::pong(payload)),
            Message::Pong(_) => {}
            Message::Close { .. } => return Err(End::Closed),
            Message::Text(_) | Message::Binary(_) => match connection.decode(message) {
                Decoded::Frame(frame) => {
                    return match self.meter.charge(&self.caller, &frame) {
                        Ok(()) => self.carry_out(connection, frame),
                        Err(refused) => limited(connection, refused),
                    };
                }
                Decoded::Bad(bad) => return self.refuse(connection, bad.id, bad.failure),
                Decoded::WrongKind => return Err(End::wrong_kind()),
            },
        }
        Ok(())
    }

    fn carry_out(&mut self, connection: &Connection, frame: ClientFrame) -> Result<(), End> {
        match frame {
            ClientFrame::Send(send) => self.send(connection, send),
            ClientFrame::Ping(ping) => connection.answer(&ServerFrame::Pong { id: ping.id }),
            ClientFrame::Bye(_) => return Err(End::Close(1000, "")),
            ClientFrame::Hello(hello) => {
                return self.refuse(
                    connection,
                    hello.id,
                    Failure::field("/type", "hello was said already"),
                );
            }
            // Positions serve a resume, which this gateway does not offer: nothing depends on them.
            ClientFrame::Seen(_) => {}
            ClientFrame::Edit(_)
            | ClientFrame::Delete(_)
            | ClientFrame::Read(_)
            | ClientFrame::Typing(_)
            | ClientFrame::Presence(_)
            | ClientFrame::Auth(_) => {
                return self.refuse(connection, None, Failure::of(Code::Internal));
            }
        }
        Ok(())
    }

    /// Answers a bad frame; ends the connection after too many.
    fn refuse(
        &mut self,
        connection: &Connection,
        id: Option<String>,
        failure: Failure,
    ) -> Result<(), End> {
        connection.answer_error(id, failure);
        let now = Instant::now();
        self.bad_frames.push_back(now);
        while self
            .bad_frames
            .front()
            .is_some_and(|first| now.duration_since(*first) > BAD_FRAMES_WITHIN)
        {
            self.bad_frames.pop_front();
        }
        if self.bad_frames.len() < BAD_FRAMES {
            Ok(())
        } else {
            Err(End::of(Code::BadFrames))
        }
    }

    fn send(&mut self, connection: &Connection, send: Send) {
        if !self.caller.scope.can_write() {
            connection.answer_error(
                Some(send.id.to_string()),
                Failure::of(Code::InsufficientScope),
            );
            return;
        }
        let payload = match JsonText::of(&send.body) {
            Ok(payload) => payload,
            Err(error) => {
                warn!(%error, "a message cannot be encoded");
                connection.answer_error(Some(send.id.to_string()), Failure::of(Code::Internal));
                return;
            }
        };
        let request = Request {
            request_id: Uuid::now_v7().to_string(),
            traceparent: None,
            caller: command::Caller {
                tenant: self.caller.tenant.clone(),
                user: self.caller.user.clone(),
                admin: self.caller.scope.is_admin(),
            },
            command: Command::SendMessage(SendMessage {
                conversation: send.conversation_id,
                client_id: send.id,
                payload,
                reply_to: send.body.reply_to,
                answer: SendAnswer::Ack,
            }),
        };
        if let Some(requests) = self.sends.submit(send.conversation_id, request) {
            self.dispatch(send.conversation_id, requests);
        }
    }

    fn dispatch(&self, conversation: ConversationId, requests: Vec<Request>) {
        let commands = self.sockets.commands.clone();
        self.on_the_way.push(Box::pin(async move {
            let ids: Vec<_> = requests.iter().filter_map(client_id).collect();
            let outcomes = commands.execute_in_order(requests).await;
            let answers = ids
                .into_iter()
                .zip(outcomes)
                .map(|((id, request_id), outcome)| (id, request_id, outcome));
            (conversation, answers.collect())
        }));
    }

    fn answer(&mut self, connection: &Connection, (conversation_id, answers): Answered) {
        for (id, request_id, outcome) in answers {
            connection.answer(&match outcome {
                Ok(Outcome::Sent(sent)) => ServerFrame::Ack(Ack {
                    id: Some(id.to_string()),
                    conversation_id: Some(conversation_id),
                    message_id: Some(sent.message_id),
                    seq: Some(sent.seq),
                    created_at: Some(sent.created_at),
                    duplicate: sent.duplicate,
                }),
                Ok(_) => ServerFrame::Error(ErrorFrame::new(
                    Some(id.to_string()),
                    Failure::of(Code::Internal),
                    request_id,
                )),
                Err(failure) => {
                    ServerFrame::Error(ErrorFrame::new(Some(id.to_string()), failure, request_id))
                }
            });
        }
        if let Some(requests) = self.sends.answered(conversation_id) {
            self.dispatch(conversation_id, requests);
        }
    }
}

/// Answers a frame that was one too many; ends the connection that goes on so.
fn limited(connection: &Connection, refused: Refused) -> Result<(), End> {
    let code = refused.failure.code;
    connection.answer_error(refused.id, refused.failure);
    if refused.ends {
        Err(End::of(code))
    } else {
        Ok(())
    }
}

fn client_id(request: &Request) -> Option<(ClientId, String)> {
    match &request.command {
        Command::SendMessage(send) => Some((send.client_id, request.request_id.clone())),
        _ => None,
    }
}

/// Hands what waits to the writer.
fn take(connection: &mut Connection) -> Result<(), End> {
    let frames = connection.outbox.take(WRITE).map_err(End::of)?;
    connection.writer.push(frames);
    Ok(())
}

/// Comes when the client has taken nothing for `patience` although something waits.
async fn stalled(since: Option<Instant>, patience: Duration) {
    match since {
        Some(since) => sleep_until(since + patience).await,
        None => pending().await,
    }
}

/// Comes at this connection's own point of the drain time, so that clients do not all reconnect at once.
async fn drained(sockets: &Sockets) {
    sockets.drain.cancelled().await;
    let share = sockets.limits.drain.mul_f64(rand::random::<f64>() * 0.8);
    let _elapsed = timeout(share, pending::<()>()).await;
}
