//! One connection's life: hello, then everything that can wake it, in one loop.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use confab_auth::Caller;
use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::signal::PresenceStatus;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::debug;

use super::Sockets;
use super::asked::PendingCommands;
use super::codec::{Decoded, decode};
use super::commands::CommandDone;
use super::connection::{Connection, End, Meanwhile, pump};
use super::ending::{drained, goaway, try_elsewhere};
use super::hello::{SlotGranted, arrive, greet};
use super::meter::{FrameLimiter, FrameRefusal};
use super::opening::{LaterToken, open, token_that_stands};
use super::renewal::{expiry, warning};
use super::sends::Sends;
use super::socket::{self, Limits, Message};
use super::typing::Typist;
use crate::account::SessionKey;
use crate::cluster::degraded;
use crate::delivery::encoding::Encoding;
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;
use crate::limits::UserConnection;
use crate::limits::parsing::is_small;
use crate::limits::slots::{KeptSlot, Slot};
use crate::sessions::Registered;
use crate::sessions::records::SessionLease;

/// Answers and sends that may wait before the socket is read no further, in bytes.
const MAX_PENDING_BYTES: usize = 1024 * 1024;
/// Bytes of answers that may wait for a socket: what a client that does not read costs at most.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Frames other than sends whose answers may wait before the socket is read no further.
const PENDING_FRAMES: usize = 64;
/// Frames that a session takes until every other task had a turn.
const TURNS_UNTIL_YIELD: u64 = 16;
/// Bad frames within [`BAD_FRAMES_WITHIN`] that end the connection.
const BAD_FRAMES: usize = 10;
const BAD_FRAMES_WITHIN: Duration = Duration::from_secs(60);

/// Serves a connection from its upgrade to its end.
pub(super) async fn serve(
    sockets: &Sockets,
    (stream, read_ahead): (TcpStream, Bytes),
    (slot, greeting): (Slot, Option<Slot>),
    encoding: Encoding,
    (caller, traceparent): (Option<Caller>, Option<Box<str>>),
) {
    let limit = if caller.is_some() {
        confab_protocol::limits::MAX_FRAME_BYTES
    } else {
        confab_protocol::limits::MAX_HELLO_BYTES
    };
    let (reader, writer) = match socket::split(stream, &read_ahead, Limits::bytes(limit)) {
        Ok(halves) => halves,
        Err(error) => {
            debug!(error = %chain(&error), "the socket was lost at once");
            return;
        }
    };
    // Even empty it keeps the buffer that the request was read into.
    drop(read_ahead);
    let send_queue = SendQueue::new(encoding, sockets.limits.outbox_bytes);
    let send_queue = Arc::new(send_queue.counting(sockets.metrics.frames.clone()));
    let mut connection = Connection {
        reader,
        writer,
        encoding,
        send_queue,
    };
    let opened = sockets.metrics.opened();
    // Boxed, so that these futures do not enlarge the connection's task.
    let beginning = Box::pin(begin(sockets, &mut connection, caller, (slot, greeting)));
    let (end, kept) = match beginning.await {
        Ok((mut session, kept)) => {
            session.traceparent = traceparent;
            let first = session.run(&mut connection).await;
            let end = Box::pin(finish(session, &mut connection, first)).await;
            (end, Some(kept))
        }
        Err(end) => (end, None),
    };
    drop(opened);
    Box::pin(connection.end(sockets, end)).await;
    drop(kept);
}

async fn begin<'a>(
    sockets: &'a Sockets,
    connection: &mut Connection,
    caller: Option<Caller>,
    (slot, greeting): (Slot, Option<Slot>),
) -> Result<(Box<Session<'a>>, KeptSlot), End> {
    let greeted = tokio::select! {
        greeted = greet(sockets, connection, caller) => greeted?,
        // An idle client gets no close frame.
        () = slot.evicted() => return Err(End::Lost),
        () = given_up(greeting.as_ref()) => return Err(End::Lost),
    };
    drop(greeting);
    let kept = slot.keep().ok_or(End::Lost)?;
    let SlotGranted { place, opening } = arrive(sockets, connection, &greeted).await?;
    let session = open(sockets, connection, greeted, place).await?;
    drop(opening);
    Ok((Box::new(session), kept))
}

/// Comes when the place among those that wait for a hello is given to another connection. Cancel-safe.
async fn given_up(greeting: Option<&Slot>) {
    match greeting {
        Some(greeting) => greeting.evicted().await,
        None => pending().await,
    }
}

async fn finish(mut session: Box<Session<'_>>, connection: &mut Connection, first: End) -> End {
    let settled = session.settle(connection, first).await;
    let end = settled.unwrap_or(first);
    session.stop_typing();
    session.close(first, end).await;
    end
}

/// An open session.
pub(super) struct Session<'a> {
    pub(super) sockets: &'a Sockets,
    /// What the hub knows the session by.
    pub(super) key: SessionKey,
    /// What its token says: the last one.
    pub(super) caller: Caller,
    /// The trace that its connection's beginning belongs to, where the client said one.
    pub(super) traceparent: Option<Box<str>>,
    /// Its place among the open sessions.
    pub(super) place: Registered,
    /// Its place among the connections of its user.
    _user_connection: UserConnection,
    /// Its hold on its record.
    pub(super) lease: SessionLease,
    /// The resume token that is still to be sent, if its record was not stored when the client was welcomed.
    later: Option<LaterToken>,
    pub(super) sends: Sends,
    pub(super) typist: Typist,
    /// What was asked of workers and of the hub, until it is answered.
    pub(super) on_the_way: PendingCommands<'a>,
    /// Pending frames other than sends, edits and deletes, which have a bound of their own.
    pub(super) pending_frames: usize,
    /// A fresh token is looked at: what it allows decides over the frames behind it.
    pub(super) renewing: bool,
    /// The hub looks at what the client said: nothing else is heard before.
    pub(super) telling_hub: bool,
    /// A large frame is parsed: nothing else is heard before.
    pub(super) parsing: bool,
    /// How often the hub is being told that there is room again, and whether some shard was too late to hear it.
    pub(super) telling_drained: usize,
    pub(super) drained_late: bool,
    /// What the client said last of its user's presence.
    pub(super) said_presence: Option<PresenceStatus>,
    bad_frames: VecDeque<Instant>,
    meter: FrameLimiter,
    heard: Instant,
    taken: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        sockets: &'a Sockets,
        key: SessionKey,
        caller: Caller,
        (place, user_connection): (Registered, UserConnection),
        (lease, later): (SessionLease, Option<LaterToken>),
    ) -> Self {
        Self {
            sockets,
            key,
            caller,
            traceparent: None,
            place,
            _user_connection: user_connection,
            lease,
            later,
            sends: Sends::default(),
            typist: Typist::default(),
            on_the_way: PendingCommands::default(),
            pending_frames: 0,
            renewing: false,
            telling_hub: false,
            parsing: false,
            telling_drained: 0,
            drained_late: false,
            said_presence: None,
            bad_frames: VecDeque::new(),
            meter: FrameLimiter::new(sockets.rates.clone()),
            heard: Instant::now(),
            taken: 0,
        }
    }

    async fn run(&mut self, connection: &mut Connection) -> End {
        let limits = &self.sockets.limits;
        let leeway = self.sockets.authenticator.leeway();
        let first = Instant::now() + limits.heartbeat.mul_f64(rand::random::<f64>());
        let mut heartbeat = interval_at(first, limits.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut token_ends = self.caller.expires_at;
        let mut expired = pin!(sleep_until(expiry(token_ends, leeway)));
        let mut expires = pin!(sleep_until(warning(token_ends)));
        let mut warned = false;
        let mut drain = pin!(drained(self.sockets));
        let mut degraded = self.sockets.degraded.clone();
        let mut turns = 0_u64;
        loop {
            let writing = connection.writer.stalled_since();
            let answers = connection.send_queue.answer_bytes();
            let reads = answers < MAX_ANSWER_BYTES
                && answers + self.sends.bytes() < MAX_PENDING_BYTES
                && self.pending_frames < PENDING_FRAMES
                && !self.renewing
                && !self.telling_hub
                && !self.parsing;
            let meanwhile = if reads {
                Meanwhile::Reading
            } else {
                Meanwhile::ReadingWaits
            };
            let step = tokio::select! {
                () = &mut drain => Err(goaway(self.sockets, connection)),
                () = degraded::found(&mut degraded) => {
                    try_elsewhere(self.sockets, connection);
                    Ok(())
                }
                // A fresh token that came before the old one ended is looked at first.
                () = &mut expired, if !self.renewing => Err(End::of(Code::TokenExpired)),
                () = &mut expires, if !warned => {
                    warned = true;
                    self.warn_of_expiry(connection);
                    Ok(())
                }
                () = stalled(writing, limits.stall) => Err(End::of(Code::SlowConsumer)),
                _ = heartbeat.tick() => self.beat(connection),
                written = pump(&connection.send_queue, &mut connection.writer, meanwhile) => written,
                code = connection.send_queue.closed(), if writing.is_some() => Err(End::of(code)),
                Some(done) = self.on_the_way.next() => self.go_on(connection, done),
                Some(token) = token_that_stands(&mut self.later) => {
                    connection.answer(&token);
                    Ok(())
                }
                message = connection.reader.next(), if reads => match message {
                    Ok(message) => self.hear(connection, message),
                    Err(error) => Err(End::from(&error)),
                },
            };
            if let Err(end) = step {
                return end;
            }
            turns += 1;
            if turns.is_multiple_of(TURNS_UNTIL_YIELD) {
                // Buffered frames never wait: without this one client could monopolise a worker thread of the runtime.
                yield_now().await;
            }
            if connection.send_queue.wants_more() {
                self.tell_drained();
            }
            if self.caller.expires_at != token_ends {
                token_ends = self.caller.expires_at;
                expired.as_mut().reset(expiry(token_ends, leeway));
                expires.as_mut().reset(warning(token_ends));
                warned = false;
            }
        }
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
        self.on_the_way.give_back();
        connection.send_queue.push_ping();
        self.meter.pinged();
        Ok(())
    }

    fn hear(&mut self, connection: &Connection, message: Message) -> Result<(), End> {
        self.heard = Instant::now();
        self.place.seen();
        match &message {
            Message::Ping(payload) => match self.meter.charge_ping(&self.caller) {
                Ok(()) => connection.send_queue.push_answer(Frame::pong(payload)),
                Err(refused) => return passed_over(&refused),
            },
            Message::Pong(payload) => match self.meter.charge_pong(&self.caller) {
                Ok(()) => {
                    if connection.send_queue.acked(payload) {
                        self.lease.acked();
                    }
                }
                Err(refused) => return passed_over(&refused),
            },
            Message::Close { .. } => return Err(End::Closed),
            Message::Text(payload) | Message::Binary(payload) if is_small(payload.len()) => {
                return self.hear_frame(connection, connection.decode(&message), payload.len());
            }
            Message::Text(_) | Message::Binary(_) => self.parse_apart(connection, message),
        }
        Ok(())
    }

    /// Parses a large frame in its turn; no other is read before.
    fn parse_apart(&mut self, connection: &Connection, message: Message) {
        let parsing = self.sockets.parsing.clone();
        let (owner, encoding) = (self.caller.owner(), connection.encoding);
        let bytes = message.payload_bytes();
        self.parsing = true;
        self.on_the_way.push(Box::pin(async move {
            let parse = move |message: &Message| Box::new(decode(encoding, message));
            CommandDone::Parsed(parsing.parse(&owner, (message, bytes), parse).await, bytes)
        }));
    }

    fn go_on(&mut self, connection: &Connection, done: CommandDone) -> Result<(), End> {
        let CommandDone::Parsed(parsed, bytes) = done else {
            self.done(connection, done);
            return Ok(());
        };
        self.parsing = false;
        match parsed {
            Ok(decoded) => {
                connection.heard(&decoded, bytes);
                self.hear_frame(connection, *decoded, bytes)
            }
            Err(failure) => {
                connection.answer_error(None, failure);
                Ok(())
            }
        }
    }

    fn hear_frame(
        &mut self,
        connection: &Connection,
        decoded: Decoded,
        bytes: usize,
    ) -> Result<(), End> {
        if let Err(refused) = self.meter.charge(&self.caller, &decoded, bytes) {
            return limited(connection, refused);
        }
        match decoded {
            Decoded::Frame(frame) => self.carry_out(connection, frame),
            Decoded::Bad(bad) => self.refuse(connection, bad.id, bad.failure),
            Decoded::WrongKind => Err(End::wrong_kind()),
        }
    }

    /// Answers a bad frame; ends the connection after too many.
    pub(super) fn refuse(
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
}

/// Answers a frame that was one too many; ends the connection that goes on so.
fn limited(connection: &Connection, refused: FrameRefusal) -> Result<(), End> {
    let code = refused.failure.code;
    connection.answer_error(refused.id, refused.failure);
    if refused.ends {
        Err(End::of(code))
    } else {
        Ok(())
    }
}

/// A ping or pong that was one too many is passed over: it has no answer that says so.
fn passed_over(refused: &FrameRefusal) -> Result<(), End> {
    if refused.ends {
        Err(End::of(refused.failure.code))
    } else {
        Ok(())
    }
}

/// Comes when the client has taken nothing for `patience` although something waits.
async fn stalled(since: Option<Instant>, patience: Duration) {
    match since {
        Some(since) => sleep_until(since + patience).await,
        None => pending().await,
    }
}
