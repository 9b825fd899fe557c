//! What waits for one socket: events bounded in bytes, answers never dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use confab_protocol::error::Code;
use tokio::sync::Notify;

use super::codec::Broadcast;
use super::frames::Frame;
use super::upgrade::Encoding;
use crate::metrics::FrameMetrics;

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
    closed: Option<Code>,
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
                if state.closed.is_some() || (state.started && !state.frames.is_empty()) {
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

    /// Takes what waits, up to about `bytes`.
    ///
    /// # Errors
    /// Why the session must end.
    pub(crate) fn take(&self, bytes: usize) -> Result<Vec<Frame>, Code> {
        let mut state = self.lock();
        if let Some(code) = state.closed {
            return Err(code);
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
