//! What waits for one socket: events bounded in bytes, answers never dropped, signals few and the newest only.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::error::Code;
use confab_protocol::frame::ServerFrame;
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::limits;
use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::frames::Frame;
use crate::delivery::acks::{Acks, Unacked};
use crate::delivery::broadcast::Broadcast;
use crate::delivery::encoding::Encoding;
use crate::delivery::encoding::encode;
use crate::metrics::FrameMetrics;

/// Typing and receipts that wait for one socket; beyond, the oldest is dropped.
const MAX_QUEUED_SIGNALS: usize = 64;
/// Users whose presence waits for one socket, likewise: as many as a snapshot names. Kept apart from typing and receipts: a dropped
/// change of presence would leave a stale status.
const MAX_QUEUED_PRESENCES: usize = limits::PRESENCE_SNAPSHOT_USERS;
/// Signals are written at once; behind that, those that come within this time go out together. Each write is a system call here and a
/// wake-up of the client, and signals come in bursts.
const SIGNAL_PAUSE: Duration = Duration::from_millis(50);
/// The same where all that waits is presence: when many users come back, each member hears of all of them.
const PRESENCE_PAUSE: Duration = Duration::from_millis(250);
/// So many signals wait for no pause: it is not to drop any.
const SIGNALS_WITHOUT_PAUSE: usize = MAX_QUEUED_SIGNALS / 2;
/// What a frame that waits takes beside its own bytes.
const FRAME_OVERHEAD_BYTES: usize = 64;
/// Places kept for frames while none waits: a socket that says little holds little.
const PLACES_KEPT: usize = 8;

/// What a signal is about: a newer one takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SignalKey {
    Typing(ConversationId, UserId),
    Receipt(ConversationId, UserId),
    Presence(UserId),
}

/// Where an event stands: its membership is the one that began with `joined`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) conversation: ConversationId,
    pub(crate) joined: Seq,
    pub(crate) seq: Seq,
}

/// The queue between the hub, the session and the socket.
#[derive(Debug)]
pub(crate) struct SendQueue {
    encoding: Encoding,
    capacity: usize,
    state: Mutex<QueueState>,
    wake: Notify,
    metrics: FrameMetrics,
}

#[derive(Debug, Default)]
struct QueueState {
    /// True once the welcome was queued: events are held until then.
    started: bool,
    frames: VecDeque<(Frame, Kind)>,
    event_bytes: usize,
    answer_bytes: usize,
    /// They go when nothing else waits.
    signals: VecDeque<QueuedSignal>,
    /// Presence goes behind the other signals.
    presences: VecDeque<QueuedSignal>,
    /// When signals were written last.
    signals_at: Option<Instant>,
    closed: Option<Code>,
    /// The hub has more events than there is room for.
    held_back: bool,
    acks: Acks,
}

impl QueueState {
    fn signals_count(&self) -> usize {
        self.signals.len() + self.presences.len()
    }

    fn next_signal(&mut self) -> Option<QueuedSignal> {
        let next = self.signals.pop_front();
        next.or_else(|| self.presences.pop_front())
    }

    /// No place is kept for the next ones: they are rare.
    fn drop_signals(&mut self) {
        (self.signals, self.presences) = (VecDeque::new(), VecDeque::new());
    }

    const fn wants_more(&self, capacity: usize) -> bool {
        self.held_back && self.event_bytes <= capacity / 4
    }

    /// When something can be written: none where nothing waits.
    fn ready(&self) -> Option<NextFrame> {
        if self.closed.is_some() || (self.started && !self.frames.is_empty()) {
            return Some(NextFrame::Now);
        }
        if !self.started || self.signals_count() == 0 {
            return None;
        }
        let pause = if self.signals.is_empty() {
            PRESENCE_PAUSE
        } else {
            SIGNAL_PAUSE
        };
        match self.signals_at.map(|at| at + pause) {
            Some(at) if self.signals_count() < SIGNALS_WITHOUT_PAUSE && Instant::now() < at => {
                Some(NextFrame::At(at))
            }
            _ => Some(NextFrame::Now),
        }
    }
}

/// A signal that waits. Keys are compared only where their hashes are equal: each is looked for among those that wait.
#[derive(Debug)]
struct QueuedSignal {
    hash: u64,
    key: SignalKey,
    frame: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextFrame {
    Now,
    /// Signals alone wait for their pause's end.
    At(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Answer,
}

impl SendQueue {
    /// An empty queue for a socket of `encoding`, that holds events of at most `capacity` bytes.
    pub(crate) fn new(encoding: Encoding, capacity: usize) -> Self {
        Self {
            encoding,
            capacity,
            state: Mutex::default(),
            wake: Notify::new(),
            metrics: FrameMetrics::default(),
        }
    }

    /// The same, whose frames are counted here.
    pub(crate) fn counting(self, metrics: FrameMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Where its frames are counted.
    pub(crate) const fn metrics(&self) -> &FrameMetrics {
        &self.metrics
    }

    /// Puts the welcome before whatever came already, a ping directly behind it, and lets the socket have them.
    pub(crate) fn start(&self, welcome: Frame) {
        let mut state = self.lock();
        let ping = Frame::ping(&state.acks.welcome());
        for frame in [ping, welcome] {
            state.answer_bytes += weight(&frame);
            state.frames.push_front((frame, Kind::Answer));
        }
        state.started = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Queues a ping whose pong proves that the client has all that stands before it.
    pub(crate) fn push_ping(&self) {
        let mut state = self.lock();
        let ping = Frame::ping(&state.acks.ping());
        state.answer_bytes += weight(&ping);
        state.frames.push_back((ping, Kind::Answer));
        drop(state);
        self.wake.notify_one();
    }

    /// A pong came; says whether it proves for the first time that the client has the welcome.
    pub(crate) fn acked(&self, payload: &[u8]) -> bool {
        self.lock().acks.pong(payload)
    }

    /// The client says that it has a conversation up to `seq`.
    pub(crate) fn seen(&self, conversation: ConversationId, seq: Seq) {
        self.lock().acks.seen(conversation, seq);
    }

    /// What the client has not acknowledged of what was queued.
    pub(crate) fn unacked(&self) -> Unacked {
        self.lock().acks.unacked()
    }

    /// Whether [`Self::wants_more`] would say so.
    pub(crate) fn has_room_again(&self) -> bool {
        self.lock().wants_more(self.capacity)
    }

    /// Whether the hub holds back events that have room now: then it is to be told, once.
    pub(crate) fn wants_more(&self) -> bool {
        let mut state = self.lock();
        let wants = state.wants_more(self.capacity);
        state.held_back &= !wants;
        wants
    }

    /// Queues an event; says whether there was room. Where there was none, [`Self::wants_more`] says when there is again. An
    /// event alone always has room.
    pub(crate) fn push_event(&self, place: Place, event: &Broadcast) -> bool {
        let frame = event.frame(self.encoding);
        let bytes = frame.as_bytes().len();
        let mut state = self.lock();
        if state.closed.is_some() {
            // It goes nowhere, so that it is never acked to have come.
            state.acks.queued(place);
            return true;
        }
        if state.event_bytes > 0 && state.event_bytes + bytes > self.capacity {
            state.held_back = true;
            return false;
        }
        state.event_bytes += bytes;
        state.frames.push_back((frame, Kind::Event));
        state.acks.queued(place);
        let wakes = state.started;
        drop(state);
        self.metrics.event(bytes);
        if wakes {
            self.wake.notify_one();
        }
        true
    }

    /// Queues a signal in the place of an older one of its key. It never ends a session.
    pub(crate) fn push_signal(&self, key: &SignalKey, signal: &Broadcast) {
        let (frame, hash) = (signal.frame(self.encoding), FxBuildHasher.hash_one(key));
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        let is_presence = matches!(key, SignalKey::Presence(_));
        let (waiting, most) = if is_presence {
            (&mut state.presences, MAX_QUEUED_PRESENCES)
        } else {
            (&mut state.signals, MAX_QUEUED_SIGNALS)
        };
        let is_same = |other: &&mut QueuedSignal| other.hash == hash && other.key == *key;
        if let Some(older) = waiting.iter_mut().find(is_same) {
            older.frame = frame;
            return;
        }
        let is_first_urgent = !is_presence && waiting.is_empty();
        if waiting.len() >= most {
            waiting.pop_front();
        }
        let key = key.clone();
        waiting.push_back(QueuedSignal { hash, key, frame });
        let count = state.signals_count();
        // Behind the first one the socket knows until when it waits.
        let changes_wait = count == 1 || count == SIGNALS_WITHOUT_PAUSE || is_first_urgent;
        let wakes = state.started && changes_wait;
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Encodes a frame of the gateway's own, and queues it as an answer.
    pub(crate) fn tell(&self, frame: &ServerFrame) {
        match encode(self.encoding, frame) {
            Ok(encoded) => {
                self.metrics.told(frame, encoded.as_bytes().len());
                self.push_answer(encoded);
            }
            Err(error) => warn!(error = %chain(&error), "an answer cannot be encoded"),
        }
    }

    /// Queues an answer.
    pub(crate) fn push_answer(&self, frame: Frame) {
        let mut state = self.lock();
        state.answer_bytes += weight(&frame);
        state.frames.push_back((frame, Kind::Answer));
        drop(state);
        self.wake.notify_one();
    }

    /// Ends the session with `code`: what waits is dropped, and nothing is queued any more.
    pub(crate) fn close(&self, code: Code) {
        let mut state = self.lock();
        state.closed.get_or_insert(code);
        state.frames.clear();
        state.drop_signals();
        (state.event_bytes, state.answer_bytes) = (0, 0);
        drop(state);
        self.wake.notify_one();
    }

    /// Bytes that the answers take which wait: past a bound the gateway stops reading the socket.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.lock().answer_bytes
    }

    /// Whether so much waits that reading more for this socket makes no sense now; then [`Self::wants_more`] says when it does.
    pub(crate) fn is_pressed(&self) -> bool {
        let mut state = self.lock();
        let pressed = state.event_bytes > self.capacity / 4;
        state.held_back |= pressed;
        pressed
    }

    /// Waits until something can be written, or the session must end. Cancel-safe.
    pub(crate) async fn ready(&self) {
        loop {
            let ready = self.lock().ready();
            match ready {
                Some(NextFrame::Now) => return,
                Some(NextFrame::At(at)) => {
                    // Seldom wanted, and too large for every idle session to hold.
                    let pause = Box::pin(sleep_until(at));
                    tokio::select! {
                        () = pause => {}
                        () = self.wake.notified() => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Waits until the session must end, and says why. Cancel-safe.
    pub(crate) async fn closed(&self) -> Code {
        loop {
            if let Some(code) = self.lock().closed {
                return code;
            }
            self.wake.notified().await;
        }
    }

    /// Gives what waits to `taker`, frame by frame, up to about `bytes`: answers alone before the welcome.
    ///
    /// # Errors
    /// Why the session must end.
    pub(crate) fn take(&self, bytes: usize, mut taker: impl FnMut(Frame)) -> Result<(), Code> {
        let mut state = self.lock();
        if let Some(code) = state.closed {
            return Err(code);
        }
        if !state.started {
            // It ends before its welcome: what came for a session that never was is nobody's.
            state.frames.retain(|(_, kind)| *kind == Kind::Answer);
            state.drop_signals();
            state.event_bytes = 0;
        }
        let mut left = bytes;
        while left > 0
            && let Some((frame, kind)) = state.frames.pop_front()
        {
            let size = frame.as_bytes().len();
            match kind {
                Kind::Event => state.event_bytes -= size,
                Kind::Answer => state.answer_bytes -= size + FRAME_OVERHEAD_BYTES,
            }
            left = left.saturating_sub(size);
            taker(frame);
        }
        if left > 0 && state.signals_count() > 0 {
            state.signals_at = Some(Instant::now());
        }
        while left > 0
            && let Some(QueuedSignal { frame, .. }) = state.next_signal()
        {
            left = left.saturating_sub(frame.as_bytes().len());
            taker(frame);
        }
        give_back(&mut state.frames);
        if state.signals_count() == 0 {
            state.drop_signals();
        }
        Ok(())
    }

    /// What waits, up to about `bytes`.
    #[cfg(test)]
    pub(crate) fn taken(&self, bytes: usize) -> Result<Vec<Frame>, Code> {
        let mut taken = Vec::new();
        self.take(bytes, |frame| taken.push(frame)).map(|()| taken)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer takes that waits.
fn weight(frame: &Frame) -> usize {
    frame.as_bytes().len() + FRAME_OVERHEAD_BYTES
}

/// Gives back the memory of a queue that was long and is empty.
fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > PLACES_KEPT {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests;
