//! Many sockets that all hear the same messages.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memchr::memmem::Finder;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout};
use uuid::Uuid;

use super::{Hearing, Latencies, SendTimes};
use crate::Error;

/// Messages whose arrivals are counted at once.
const MAX_COUNTED_MESSAGES: usize = 1024;
/// How long a message may take until all have it.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// What many sockets hear.
#[derive(Debug)]
pub(crate) struct Arrivals {
    sent: SendTimes,
    sockets: u32,
    /// From the intended time of a message to its event at each socket.
    pub(crate) latencies: Latencies,
    /// Messages that were refused.
    pub(crate) failed: AtomicU64,
    /// Messages that are not everywhere yet, and how many may be where each waits for room.
    on_the_way: AtomicUsize,
    at_once: usize,
    room: Notify,
    arrived: Vec<AtomicU32>,
    sample: OnceLock<Bytes>,
}

impl Arrivals {
    /// As many sockets; `at_once` messages may be on the way where each waits for room.
    pub(crate) fn new(sockets: u32, at_once: usize) -> Self {
        Self {
            sent: SendTimes::new(),
            sockets,
            latencies: Latencies::default(),
            failed: AtomicU64::new(0),
            on_the_way: AtomicUsize::new(0),
            at_once,
            room: Notify::new(),
            arrived: (0..MAX_COUNTED_MESSAGES)
                .map(|_| AtomicU32::new(0))
                .collect(),
            sample: OnceLock::new(),
        }
    }

    /// The client id of the next message.
    pub(crate) fn next(&self, intended: Instant) -> Uuid {
        let id = self.sent.next(intended);
        if let Some(arrived) = self.slot(id) {
            arrived.store(0, Ordering::Relaxed);
        }
        self.on_the_way.fetch_add(1, Ordering::Relaxed);
        id
    }

    /// Waits until one more may be on the way.
    pub(crate) async fn room(&self) -> Result<(), Error> {
        let room = timeout(ARRIVAL_TIMEOUT, async {
            while self.on_the_way.load(Ordering::Relaxed) >= self.at_once {
                self.room.notified().await;
            }
        });
        room.await.map_err(|_late| Error::Timeout {
            what: "a message at every socket".to_owned(),
            within: ARRIVAL_TIMEOUT,
        })
    }

    /// What is on the way counts no more.
    pub(crate) fn restart(&self) {
        self.on_the_way.store(0, Ordering::Relaxed);
    }

    /// How many sockets have a message.
    pub(crate) fn arrived(&self, id: Uuid) -> u32 {
        self.slot(id)
            .map_or(0, |arrived| arrived.load(Ordering::Relaxed))
    }

    /// An event as it came.
    pub(crate) fn sample(&self) -> Option<Bytes> {
        self.sample.get().cloned()
    }

    /// What one of the sockets does with what it hears.
    pub(crate) fn hearing(self: &Arc<Self>) -> Hearing {
        let (arrivals, client_id) = (Arc::clone(self), Finder::new(br#""clientId":""#));
        Box::new(move |payload| {
            if payload.starts_with(br#"{"type":"message.created""#) {
                if let Some(id) = SendTimes::id_in(payload, &client_id) {
                    arrivals.heard(id, payload);
                }
            } else if payload.starts_with(br#"{"type":"error""#) {
                arrivals.failed.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    fn heard(&self, id: Uuid, payload: &[u8]) {
        let Some(took) = self.sent.took(id) else {
            return;
        };
        self.latencies.record(took);
        let before = self.slot(id).map(|n| n.fetch_add(1, Ordering::Relaxed));
        if before == Some(self.sockets - 1) {
            self.sample.get_or_init(|| Bytes::copy_from_slice(payload));
            self.on_the_way
                .update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    n.saturating_sub(1)
                });
            self.room.notify_one();
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "taken modulo a usize")]
    fn slot(&self, id: Uuid) -> Option<&AtomicU32> {
        self.arrived
            .get(SendTimes::number(id) as usize % MAX_COUNTED_MESSAGES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fully_delivered_message_frees_its_slot() {
        let arrivals = Arc::new(Arrivals::new(2, 1));
        let on_the_way = || arrivals.on_the_way.load(Ordering::Relaxed);
        let mut hear = [arrivals.hearing(), arrivals.hearing()];
        arrivals.room().await.unwrap();
        let id = arrivals.next(Instant::now());
        let event = format!(r#"{{"type":"message.created","data":{{"clientId":"{id}"}}}}"#);
        hear[0](event.as_bytes());
        assert_eq!((arrivals.arrived(id), on_the_way()), (1, 1));
        hear[1](event.as_bytes());
        assert_eq!((arrivals.arrived(id), on_the_way()), (2, 0));
        assert_eq!(arrivals.sample().unwrap(), event);
        hear[1](br#"{"type":"message.created","data":{"clientId":"00000000-0000-0000-0000-000000000000"}}"#);
        assert_eq!(arrivals.latencies.take().count, 2);
    }
}
