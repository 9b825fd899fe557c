//! What waits for one socket: events bounded in bytes, answers never dropped, signals few and the newest only.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::error::Code;
use confab_protocol::frame::ServerFrame;
use confab_protocol::ids::{ConversationId, Seq, UserId};
use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::codec::{Broadcast, encode};
use super::frames::Frame;
use super::proofs::{Proofs, Unproven};
use super::upgrade::Encoding;
use crate::metrics::FrameMetrics;

/// Signals that wait for one socket; beyond, the oldest is dropped.
const SIGNALS: usize = 64;
/// Signals are written at once; behind that, those that come within this time go out together. Each write is a system call here and a
/// wake-up of the client, and signals come in bursts.
const SIGNAL_PAUSE: Duration = Duration::from_millis(50);
/// The same where all that waits is presence: when many users come back, each member hears of all of them.
const PRESENCE_PAUSE: Duration = Duration::from_millis(250);
/// So many signals wait for no pause: it is not to drop any.
const SIGNALS_WITHOUT_PAUSE: usize = SIGNALS / 2;
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
    signals: VecDeque<Signal>,
    /// Whether another signal than presence is among them.
    is_urgent: bool,
    /// When signals were written last.
    signals_at: Option<Instant>,
    closed: Option<Code>,
    /// The hub has more events than there is room for.
    held_back: bool,
    proofs: Proofs,
}

impl State {
    const fn wants_more(&self, capacity: usize) -> bool {
        self.held_back && self.event_bytes <= capacity / 4
    }

    /// When something can be written: none where nothing waits.
    fn ready(&self) -> Option<Ready> {
        if self.closed.is_some() || (self.started && !self.frames.is_empty()) {
            return Some(Ready::Now);
        }
        if !self.started || self.signals.is_empty() {
            return None;
        }
        let pause = if self.is_urgent {
            SIGNAL_PAUSE
        } else {
            PRESENCE_PAUSE
        };
        match self.signals_at.map(|at| at + pause) {
            Some(at) if self.signals.len() < SIGNALS_WITHOUT_PAUSE && Instant::now() < at => {
                Some(Ready::At(at))
            }
            _ => Some(Ready::Now),
        }
    }
}

/// A signal that waits. Keys are compared only where their hashes are equal: each is looked for among those that wait.
#[derive(Debug)]
struct Signal {
    hash: u64,
    key: SignalKey,
    frame: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Now,
    /// Signals alone wait for their pause's end.
    At(Instant),
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

    /// Puts the welcome before whatever came already, a ping directly behind it, and lets the socket have them.
    pub(crate) fn start(&self, welcome: Frame) {
        let mut state = self.lock();
        let ping = Frame::ping(&state.proofs.welcome());
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
        let ping = Frame::ping(&state.proofs.ping());
        state.answer_bytes += weight(&ping);
        state.frames.push_back((ping, Kind::Answer));
        drop(state);
        self.wake.notify_one();
    }

    /// A pong came; says whether it proves for the first time that the client has the welcome.
    pub(crate) fn proven(&self, payload: &[u8]) -> bool {
        self.lock().proofs.pong(payload)
    }

    /// The client says that it has a conversation up to `seq`.
    pub(crate) fn seen(&self, conversation: ConversationId, seq: Seq) {
        self.lock().proofs.seen(conversation, seq);
    }

    /// What the client is not proven to have of what was queued.
    pub(crate) fn unproven(&self) -> Unproven {
        self.lock().proofs.unproven()
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
            // It goes nowhere, so that it is never proven to have come.
            state.proofs.queued(place);
            return true;
        }
        if state.event_bytes > 0 && state.event_bytes + bytes > self.capacity {
            state.held_back = true;
            return false;
        }
        state.event_bytes += bytes;
        state.frames.push_back((frame, Kind::Event));
        state.proofs.queued(place);
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
        let is_same = |other: &&mut Signal| other.hash == hash && other.key == *key;
        if let Some(older) = state.signals.iter_mut().find(is_same) {
            older.frame = frame;
            return;
        }
        if state.signals.len() >= SIGNALS {
            state.signals.pop_front();
        }
        let key = key.clone();
        let is_presence = matches!(key, SignalKey::Presence(_));
        state.signals.push_back(Signal { hash, key, frame });
        let count = state.signals.len();
        let is_first_urgent = !state.is_urgent && !is_presence;
        state.is_urgent |= is_first_urgent;
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
        state.signals.clear();
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
                Some(Ready::Now) => return,
                Some(Ready::At(at)) => {
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
            state.signals.clear();
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
        if left > 0 && !state.signals.is_empty() {
            state.signals_at = Some(Instant::now());
        }
        while left > 0
            && let Some(Signal { frame, .. }) = state.signals.pop_front()
        {
            left = left.saturating_sub(frame.as_bytes().len());
            taker(frame);
        }
        give_back(&mut state.frames);
        if state.signals.is_empty() {
            state.is_urgent = false;
            // Signals are rare: no place is kept for the next one.
            state.signals = VecDeque::new();
        }
        Ok(())
    }

    /// What waits, up to about `bytes`.
    #[cfg(test)]
    pub(crate) fn taken(&self, bytes: usize) -> Result<Vec<Frame>, Code> {
        let mut taken = Vec::new();
        self.take(bytes, |frame| taken.push(frame)).map(|()| taken)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
mod tests {
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn event(outbox: &Outbox, text: &'static str) -> bool {
        let place = Place {
            conversation: ConversationId(Uuid::nil()),
            joined: 1,
            seq: 1,
        };
        outbox.push_event(place, &Broadcast::new(text.as_bytes()))
    }

    fn welcome_ping() -> Frame {
        Frame::ping(&1_u64.to_be_bytes())
    }

    #[test]
    fn the_welcome_and_its_ping_stand_before_events_that_came_first() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        event(&outbox, "1");
        outbox.start(Frame::text(b"welcome"));
        let frames = outbox.taken(1000).unwrap();
        let due = [Frame::text(b"welcome"), welcome_ping(), Frame::text(b"1")];
        assert_eq!(frames, due);
        assert_eq!(outbox.answer_bytes(), 0);
        assert!(outbox.proven(&1_u64.to_be_bytes()));
    }

    #[test]
    fn events_beyond_the_capacity_are_held_back_until_there_is_room() {
        let outbox = Outbox::new(Encoding::Json, 16);
        assert!(event(&outbox, "a long one finds room alone"));
        assert!(!event(&outbox, "1"));
        assert!(!outbox.wants_more(), "no room yet");
        outbox.start(Frame::text(b"w"));
        assert_eq!(outbox.taken(1000).unwrap().len(), 3);
        assert!(outbox.wants_more());
        assert!(!outbox.wants_more(), "once");
        assert!(event(&outbox, "1234") && outbox.is_pressed());
        outbox.taken(1000).unwrap();
        assert!(outbox.wants_more() && event(&outbox, "1"));
        assert_eq!(outbox.unproven().len(), 1);
    }

    fn signal(outbox: &Outbox, user: usize, text: String) {
        let key = SignalKey::Presence(format!("u{user}").parse().unwrap());
        outbox.push_signal(&key, &Broadcast::new(text.as_bytes()));
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
        assert_eq!(outbox.taken(17).unwrap().len(), 4, "no signal among them");
        let frames = outbox.taken(10_000).unwrap();
        assert_eq!(frames.len(), SIGNALS);
        assert_eq!(frames[0], Frame::text(format!("old {SIGNALS}").as_bytes()));
        assert_eq!(frames[SIGNALS - 1], Frame::text(b"new"));
        assert_eq!(outbox.taken(10_000).unwrap(), []);
    }

    /// An outbox whose client has its welcome and one signal.
    fn behind_first_signal() -> Outbox {
        let outbox = Outbox::new(Encoding::Json, 1000);
        outbox.start(Frame::text(b"w"));
        outbox.taken(1000).unwrap();
        signal(&outbox, 0, "first".to_owned());
        assert!(outbox.ready().now_or_never().is_some());
        outbox.taken(1000).unwrap();
        outbox
    }

    #[tokio::test(start_paused = true)]
    async fn signals_behind_the_first_go_together() {
        let outbox = behind_first_signal();
        let began = Instant::now();
        signal(&outbox, 1, "1".to_owned());
        let mut ready = Box::pin(outbox.ready());
        assert!(ready.as_mut().now_or_never().is_none());
        signal(&outbox, 2, "2".to_owned());
        ready.await;
        assert!(began.elapsed() >= PRESENCE_PAUSE);
        assert_eq!(outbox.taken(1000).unwrap().len(), 2);
        tokio::time::advance(PRESENCE_PAUSE).await;
        signal(&outbox, 3, "3".to_owned());
        assert!(
            outbox.ready().now_or_never().is_some(),
            "a lone one waits for nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pause_of_signals_holds_up_nothing_else() {
        let outbox = behind_first_signal();
        signal(&outbox, 1, "1".to_owned());
        assert!(outbox.ready().now_or_never().is_none());
        event(&outbox, "1");
        assert!(outbox.ready().now_or_never().is_some());
        assert_eq!(outbox.taken(1000).unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn typing_ends_pause_of_presence() {
        let outbox = behind_first_signal();
        let began = Instant::now();
        signal(&outbox, 1, "1".to_owned());
        let mut ready = Box::pin(outbox.ready());
        assert!(ready.as_mut().now_or_never().is_none());
        let typing = SignalKey::Typing(ConversationId(Uuid::nil()), "u".parse().unwrap());
        outbox.push_signal(&typing, &Broadcast::new(b"t"));
        ready.await;
        let waited = began.elapsed();
        assert!(
            (SIGNAL_PAUSE..PRESENCE_PAUSE).contains(&waited),
            "{waited:?}"
        );
        assert_eq!(outbox.taken(1000).unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_signals_wait_for_no_pause() {
        let outbox = behind_first_signal();
        let mut ready = Box::pin(outbox.ready());
        for user in 1..SIGNALS_WITHOUT_PAUSE {
            signal(&outbox, user, "s".to_owned());
            assert!(ready.as_mut().now_or_never().is_none());
        }
        signal(&outbox, SIGNALS, "s".to_owned());
        assert!(ready.now_or_never().is_some());
    }

    #[test]
    fn what_comes_behind_the_end_is_not_proven_to_have_come() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        outbox.start(Frame::text(b"w"));
        outbox.close(Code::InvalidToken);
        assert!(event(&outbox, "1"), "nobody is to wait for room");
        assert_eq!(outbox.unproven().len(), 1);
    }

    #[test]
    fn without_a_welcome_there_are_answers_and_nothing_else() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        event(&outbox, "1");
        signal(&outbox, 1, "s".to_owned());
        outbox.push_answer(Frame::text(b"refused"));
        assert_eq!(outbox.taken(usize::MAX), Ok(vec![Frame::text(b"refused")]));
    }

    #[test]
    fn small_answers_count_with_what_they_take() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        outbox.start(Frame::text(b"w"));
        outbox.taken(1000).unwrap();
        for _ in 0..100 {
            outbox.push_answer(Frame::pong(b""));
        }
        assert!(outbox.answer_bytes() >= 100 * FRAME_OVERHEAD_BYTES);
        outbox.taken(1000).unwrap();
        assert_eq!(outbox.answer_bytes(), 0);
    }

    #[test]
    fn what_is_taken_is_bounded() {
        let outbox = Outbox::new(Encoding::Json, 1000);
        outbox.start(Frame::text(b"w"));
        for _ in 0..10 {
            event(&outbox, "12345678");
        }
        assert_eq!(outbox.taken(23).unwrap().len(), 3);
        assert_eq!(outbox.taken(1000).unwrap().len(), 9);
    }
}
