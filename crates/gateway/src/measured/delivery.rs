//! One event on its way to many sockets: feed, sequencer, window, hub, send queue, writer.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use confab_bus::feed::FeedEvent;
use confab_protocol::ids::{IdError, Seq};
use tokio::io::Sink;

use super::{hub, message, open, opening};
use crate::delivery::encoding::Encoding;
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;
use crate::hub::{Hub, Start};
use crate::ws::socket::Writer;

/// What a window holds that is soon full, so that every event puts one out.
const WINDOW_BYTES: usize = 16 * 1024;
/// Bytes of events that may wait for a socket.
const QUEUE_BYTES: usize = 64 * 1024;
/// What one write takes at most, in bytes.
const MAX_WRITE_BYTES: usize = 128 * 1024;

/// A conversation all of whose members are here, each with a socket that swallows what it is written.
#[derive(Debug)]
pub struct Delivery {
    hub: Hub,
    event: FeedEvent,
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Socket {
    send_queue: Arc<SendQueue>,
    writer: Writer<Sink>,
    /// The number of its last ping.
    pings: u64,
}

impl Delivery {
    /// So many sessions are open and welcomed; every event has this JSON.
    ///
    /// # Errors
    /// Never.
    pub fn to(sessions: u64, json: Bytes) -> Result<Self, IdError> {
        let mut hub = hub(WINDOW_BYTES);
        let mut sockets = Vec::new();
        for number in 0..sessions {
            let send_queue = Arc::new(SendQueue::new(Encoding::Json, QUEUE_BYTES));
            let opening = opening(number, Arc::clone(&send_queue), Start::default())?;
            open(&mut hub, opening, 1);
            send_queue.start(Frame::text(b"{}"));
            sockets.push(Socket {
                send_queue,
                writer: Writer::new(tokio::io::sink()),
                pings: 1,
            });
        }
        let event = message(1, json)?;
        let mut delivery = Self {
            hub,
            event,
            sockets,
        };
        delivery.take();
        delivery.write();
        Ok(delivery)
    }

    /// The next event comes through the feed, and stands in every send queue.
    pub fn dispatch(&mut self) {
        self.event.seq += 1;
        self.hub.tick(Instant::now());
        self.hub.heard(&self.event);
        while self.hub.is_pushing() {
            self.hub.push_on();
        }
        drop(self.hub.effects());
    }

    /// What waits in the outboxes stands in the writers.
    pub fn take(&mut self) {
        for socket in &mut self.sockets {
            let Socket {
                send_queue, writer, ..
            } = socket;
            let _no_socket_is_closed = send_queue.take(MAX_WRITE_BYTES, |frame| writer.push(frame));
        }
    }

    /// What stands in the writers is written.
    pub fn write(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for socket in &mut self.sockets {
            let _swallowed = pin!(socket.writer.flush()).poll(&mut cx);
        }
    }

    /// All of it.
    pub fn deliver(&mut self) {
        self.dispatch();
        self.take();
        self.write();
    }

    /// Every socket is pinged, and every client answers.
    pub fn beat(&mut self) {
        for socket in &mut self.sockets {
            socket.send_queue.push_ping();
            socket.pings += 1;
        }
        self.take();
        self.write();
        for socket in &self.sockets {
            socket.send_queue.acked(&socket.pings.to_be_bytes());
        }
    }

    /// Up to where the clients have acknowledged the conversation's events, and the last of these.
    #[must_use]
    pub fn stands(&self) -> (Option<Seq>, Seq) {
        let unacked = |socket: &Socket| {
            let first = socket.send_queue.unacked().into_values().next();
            first.map_or(self.event.seq, |(_, first)| first - 1)
        };
        (self.sockets.iter().map(unacked).min(), self.event.seq)
    }

    /// Bytes that the sockets took in all.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.sockets
            .iter()
            .map(|socket| socket.writer.taken())
            .sum()
    }
}
