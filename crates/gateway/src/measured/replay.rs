//! The replay window, and a session that is caught up from it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use confab_bus::records::Position;
use confab_protocol::ids::{IdError, Seq};

use super::{CONVERSATION_ID, hub, message, open, opening};
use crate::account::SessionKey;
use crate::delivery::encoding::Encoding;
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;
use crate::delivery::sequencer::LogEvent;
use crate::delivery::window::{Bounds, Window};
use crate::hub::{Hub, Start};

/// A window that is full: every event that comes puts one out.
#[derive(Debug)]
pub struct ReplayWindow {
    window: Window,
    event: LogEvent,
    now: Instant,
}

impl ReplayWindow {
    /// It holds so many events of one conversation, each with this JSON.
    ///
    /// # Errors
    /// Never.
    pub fn of(events: usize, json: Bytes) -> Result<Self, IdError> {
        let event = LogEvent::from(&message(1, json)?);
        let now = Instant::now();
        let all = Bounds {
            age: super::WINDOW_AGE,
            bytes: usize::MAX,
        };
        let mut one = Window::new(all, now);
        one.note(CONVERSATION_ID, &event, now);
        let bounds = Bounds {
            age: super::WINDOW_AGE,
            bytes: one.bytes() * events,
        };
        let window = Window::new(bounds, now);
        let mut window = Self { window, event, now };
        for _ in 0..=events {
            window.record();
        }
        Ok(window)
    }

    /// How many events it holds.
    #[must_use]
    pub fn events(&self) -> usize {
        self.window.events()
    }

    /// Takes the next event.
    pub fn record(&mut self) {
        self.event.seq += 1;
        self.window.note(CONVERSATION_ID, &self.event, self.now);
    }

    /// Goes through the last events; says how many bytes they have.
    #[must_use]
    pub fn look_up(&self, events: u64) -> usize {
        let last = self.event.seq;
        let found = self.window.behind(CONVERSATION_ID, last - events, last);
        found.into_iter().flatten().map(LogEvent::bytes).sum()
    }

    /// What the last events weigh.
    #[must_use]
    pub fn weigh(&self, events: u64) -> Option<usize> {
        let last = self.event.seq;
        self.window.weight(CONVERSATION_ID, last - events, last)
    }
}

/// Sessions that come back one after the other, and are caught up from the window.
#[derive(Debug)]
pub struct Resume {
    hub: Hub,
    missed: u64,
    head: Seq,
    resumed: u64,
}

impl Resume {
    /// Each missed so many events, each with this JSON.
    ///
    /// # Errors
    /// Never.
    pub fn behind(missed: u64, json: Bytes) -> Result<Self, IdError> {
        let mut hub = hub(usize::MAX);
        let mut event = message(1, json)?;
        for _ in 0..=missed {
            event.seq += 1;
            hub.heard(&event);
        }
        Ok(Self {
            hub,
            missed,
            head: event.seq,
            resumed: 0,
        })
    }

    /// A session comes back, is caught up, and leaves; says how many events it was replayed.
    ///
    /// # Errors
    /// Never.
    pub fn resume(&mut self) -> Result<Option<u64>, IdError> {
        self.resumed += 1;
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, usize::MAX));
        let start = Start {
            resumed: true,
            positions: vec![Position {
                conversation: CONVERSATION_ID,
                joined: 1,
                seq: self.head - self.missed,
            }],
            ..Start::default()
        };
        let opening = opening(self.resumed, Arc::clone(&send_queue), start)?;
        let replayed = open(&mut self.hub, opening, self.head);
        send_queue.start(Frame::text(b"{}"));
        self.hub.close(SessionKey(self.resumed));
        Ok(replayed)
    }
}
