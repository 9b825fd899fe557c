//! What waits for one socket: events bounded in bytes, answers never dropped, signals few and the newest only.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, UserId};
use tokio::sync::Notify;

use super::codec::Broadcast;
use super::frames::Frame;
use super::upgrade::Encoding;
use crate::metrics::FrameMetrics;

/// Signals that wait for one socket; beyond, the oldest is dropped.
const SIGNALS: usize = 64;

/// What a signal is about: a newer one takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignalKey {
    Typing(ConversationId, UserId),
    Receipt(ConversationId, UserId),
    Presence(UserId),
}

/// The queue between the hub, the session and the socket.
#[derive(Debug)]
pub(crate) struct Outbox {
    encoding: Encoding,
    capacity: usize,
    state: Mutex<State>,
    wake: Notify,
    metrics: FrameMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// Events wait until the welcome stands before them.
    started: bool,
    frames: VecDeque<(Frame, Kind)>,
    event_bytes: usize,
    answer_bytes: usize,
    /// They go when nothing else waits.
    signals: VecDeque<(SignalKey, Frame)>,
    closed: Option<Code>,
}

impl State {
    fn has_any(&self) -> bool {
        !self.frames.is_empty() || !self.signals.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Answer,
}

impl Outbox {
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

    /// Puts the welcome before whatever came already, and lets the socket have it.
    pub(crate) fn start(&self, welcome: Frame) {
        let mut state = self.lock();
        state.answer_bytes += welcome.as_bytes().len();
        state.frames.push_front((welcome, Kind::Answer));
        state.started = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Queues a ping whose pong proves that the client has all that stands before it.
    pub(crate) fn push_ping(&self) {
        self.push_answer(Frame::ping(&[]));
    }

    /// A pong came; says whether it proves that the client has the welcome.
    pub(crate) fn proven(&self, _payload: &[u8]) -> bool {
        true
    }

    /// Whether the hub holds back events that have room now: then it is to be told, once.
    pub(crate) fn wants_more(&self) -> bool {
        false
    }

    /// Queues an event. When there is no room the client is a slow consumer, and nothing is queued any more.
    pub(crate) fn push_event(&self, event: &Broadcast<'_>) {
        let frame = event.frame(self.encoding);
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        let bytes = frame.as_bytes().len();
        if state.event_bytes + bytes > self.capacity {
            state.closed = Some(Code::SlowConsumer);
            state.frames.clear();
            state.signals.clear();
            (state.event_bytes, state.answer_bytes) = (0, 0);
        } else {
            state.event_bytes += bytes;
            state.frames.push_back((frame, Kind::Event));
            self.metrics.event(bytes);
        }
        let wakes = state.started || state.closed.is_some();
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Queues a signal in the place of an older one of its key. It never ends a session.
    pub(crate) fn push_signal(&self, key: &SignalKey, signal: &Broadcast<'_>) {
        let frame = signal.frame(self.encoding);
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        match state.signals.iter_mut().find(|(other, _)| other == key) {
            Some((_, older)) => *older = frame,
            None => {
                if state.signals.len() >= SIGNALS {
                    state.signals.pop_front();
                }
                state.signals.push_back((key.clone(), frame));
            }
        }
        let wakes = state.started;
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Queues an answer.
    pub(crate) fn push_answer(&self, frame: Frame) {
        let mut state = self.lock();
        state.answer_bytes += frame.as_bytes().len();
        state.frames.push_back((frame, Kind::Answer));
        drop(state);
        self.wake.notify_one();
    }

    /// Ends the session with `code`: what waits is dropped, and nothing is queued any more.
    pub(crate) fn close(&self, code: Code) {
        let mut state = self.lock();
        state.closed.get_or_insert(code);
        state.frames.clear();
        state.signals.clear();
        (state.event_bytes, state.answer_bytes) = (0, 0);
        drop(state);
        self.wake.notify_one();
    }

    /// Bytes of the answers that wait: past a bound the gateway stops reading the socket.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.lock().answer_bytes
    }

    /// Whether so much waits that reading more for this socket makes no sense now.
    pub(crate) fn is_pressed(&self) -> bool {
        let state = self.lock();
        state.event_bytes > self.capacity / 4
    }

    /// Waits until something can be written, or the session must end. Cancel-safe.
    pub(crate) async fn ready(&self) {
        loop {
            {
                let state = self.lock();
                if state.closed.is_some() || (state.started && state.has_any()) {
                    return;
                }
            }
            self.wake.notified().await;
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

    /// Takes what waits, up to about `bytes`: answers alone before the welcome.
    ///
    /// # Errors
    /// Why the session must end.
    pub(crate) fn take(&self, bytes: usize) -> Result<Vec<Frame>, Code> {
        let mut state = self.lock();
        if let Some(code) = state.closed {
            return Err(code);
        }
        if !state.started {
            // It ends before its welcome: what came for a session that never was is nobody's.
            state.frames.retain(|(_, kind)| *kind == Kind::Answer);
            state.signals.clear();
            state.event_bytes = 0;
        }
        let mut taken = Vec::new();
        let mut left = bytes;
        while left > 0
            && let Some((frame, kind)) = state.frames.pop_front()
        {
            let size = frame.as_bytes().len();
            match kind {
                Kind::Event => state.event_bytes -= size,
                Kind::Answer => state.answer_bytes -= size,
            }
            left = left.saturating_sub(size);
            taken.push(frame);
        }
        while left > 0
            && let Some((_, frame)) = state.signals.pop_front()
        {
            left = left.saturating_sub(frame.as_bytes().len());
            taken.push(frame);
        }
        Ok(taken)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(outbox: &Outbox, text: &'static str) {
        outbox.push_event(&Broadcast::new(&Bytes::from_static(text.as_bytes())));
    }

    #[test]
    fn the_welcome_stands_before_events_that_came_first() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        event(&outbox, "1");
        outbox.start(Frame::text(b"welcome"));
        let frames = outbox.take(1000).unwrap();
        assert_eq!(frames, [Frame::text(b"welcome"), Frame::text(b"1")]);
        assert_eq!(outbox.answer_bytes(), 0);
    }

    #[test]
    fn events_beyond_the_capacity_end_the_session_and_hold_no_memory() {
        let outbox = Outbox::new(Encoding::Json, 8);
        event(&outbox, "1234");
        event(&outbox, "1234");
        assert_eq!(outbox.take(100), Err(Code::SlowConsumer));
        assert!(outbox.lock().frames.is_empty());
    }

    fn signal(outbox: &Outbox, user: usize, text: String) {
        let key = SignalKey::Presence(format!("u{user}").parse().unwrap());
        outbox.push_signal(&key, &Broadcast::new(&Bytes::from(text)));
    }

    #[test]
    fn signals_stand_behind_all_else_the_newest_of_each_and_never_end_a_session() {
        let outbox = Outbox::new(Encoding::Json, 8);
        outbox.start(Frame::text(b"w"));
        for user in 0..2 * SIGNALS {
            signal(&outbox, user, format!("old {user}"));
        }
        signal(&outbox, 2 * SIGNALS - 1, "new".to_owned());
        event(&outbox, "1");
        outbox.push_answer(Frame::text(b"a"));
        assert_eq!(outbox.take(7).unwrap().len(), 3, "no signal among them");
        let frames = outbox.take(10_000).unwrap();
        assert_eq!(frames.len(), SIGNALS);
        assert_eq!(frames[0], Frame::text(format!("old {SIGNALS}").as_bytes()));
        assert_eq!(frames[SIGNALS - 1], Frame::text(b"new"));
        assert_eq!(outbox.take(10_000).unwrap(), []);
    }

    #[test]
    fn without_a_welcome_there_are_answers_and_nothing_else() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        event(&outbox, "1");
        signal(&outbox, 1, "s".to_owned());
        outbox.push_answer(Frame::text(b"refused"));
        assert_eq!(outbox.take(usize::MAX), Ok(vec![Frame::text(b"refused")]));
    }

    #[test]
    fn what_is_taken_is_bounded() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        outbox.start(Frame::text(b"w"));
        for _ in 0..10 {
            event(&outbox, "12345678");
        }
        assert_eq!(outbox.take(13).unwrap().len(), 2);
        assert_eq!(outbox.take(1000).unwrap().len(), 9);
    }
}
