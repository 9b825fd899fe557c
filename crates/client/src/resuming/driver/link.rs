use std::collections::VecDeque;
use std::time::Duration;

use confab_protocol::frame::{ClientFrame, Heard, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::session::driver;
use crate::ws::{Closed, Ws, WsReceiver};

/// Frames on their way to the socket. What waits longer, waits where a further connection finds it.
const FRAME_QUEUE_CAPACITY: usize = 16;
/// Frames of its own that a connection keeps: more than that are signals that came too fast.
const MAX_OWN_FRAMES: usize = 64;
/// Interval at which a gateway pings unless it says otherwise.
const HEARTBEAT_SECONDS: u64 = 25;

/// The connection that is.
#[derive(Debug)]
pub(super) struct Link {
    frames: mpsc::Sender<ClientFrame>,
    receiver: WsReceiver,
    /// What is for this connection only, and goes before what is kept.
    own: VecDeque<ClientFrame>,
    /// Since when it stands.
    pub(super) since: Instant,
    /// Since when it is read without a break: what is not read is not silent.
    reading_since: Instant,
    /// How long it may be silent.
    silence: Duration,
    /// Before when an error that answers nothing asked not to come again.
    pub(super) not_before: Option<Instant>,
    /// True if the session may have gone over to another connection, so that this one may be told so.
    pub(super) succeeded: bool,
    /// The writer.
    _tasks: JoinSet<()>,
}

impl Link {
    pub(super) fn new(welcome: &Welcome, ws: Ws, now: Instant) -> Self {
        let (sender, receiver) = ws.split();
        let (frames, queued) = mpsc::channel(FRAME_QUEUE_CAPACITY);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver::write(sender, queued));
        let heartbeat = match welcome.heartbeat_seconds {
            0 => HEARTBEAT_SECONDS,
            seconds => seconds,
        };
        Self {
            frames,
            receiver,
            own: VecDeque::new(),
            since: now,
            reading_since: now,
            silence: Duration::from_secs(heartbeat.saturating_mul(2)),
            not_before: None,
            succeeded: false,
            _tasks: tasks,
        }
    }

    /// Both sides, for waiting on them at once.
    pub(super) const fn sides(&mut self) -> (&mut WsReceiver, &mpsc::Sender<ClientFrame>) {
        (&mut self.receiver, &self.frames)
    }

    /// Puts a frame in front of what is kept. Signals that come faster than they are written are dropped.
    pub(super) fn say(&mut self, frame: ClientFrame) {
        if self.own.len() < MAX_OWN_FRAMES {
            self.own.push_back(frame);
        }
    }

    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// Returns true if a frame can be written now. Never where the writer is gone, which the reader will report.
    pub(super) fn has_room(&self) -> bool {
        self.frames.capacity() > 0 && !self.frames.is_closed()
    }

    pub(super) fn is_writable(&self) -> bool {
        !self.frames.is_closed()
    }

    pub(super) fn take_own(&mut self) -> Option<ClientFrame> {
        self.own.pop_front()
    }

    /// Hands a frame to the writer; there is room.
    pub(super) fn write(&self, frame: ClientFrame) {
        let _gone = self.frames.try_send(frame).is_err();
    }

    /// The program took what kept the socket from being read.
    pub(super) const fn reads_again(&mut self, now: Instant) {
        self.reading_since = now;
    }

    /// When it will have been silent for too long.
    pub(super) fn dead_at(&self) -> Instant {
        self.receiver.last_heard().max(self.reading_since) + self.silence
    }

    /// Returns how long to stay away, as an error asked.
    pub(super) fn named(&self, now: Instant) -> Option<Duration> {
        self.not_before?.checked_duration_since(now)
    }

    pub(super) fn silent(&self) -> Closed {
        Closed {
            code: None,
            reason: format!("nothing was heard for {:?}", self.silence),
        }
    }
}

/// Returns what is received next; never, without a connection. Cancel-safe.
pub(super) async fn hear(receiver: Option<&mut WsReceiver>) -> Result<Heard, Closed> {
    match receiver {
        Some(receiver) => receiver.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for room, or for the writer's end. Cancel-safe.
pub(super) async fn room(frames: Option<&mpsc::Sender<ClientFrame>>) {
    match frames {
        Some(frames) => drop(frames.reserve().await),
        None => std::future::pending().await,
    }
}
