//! Messages at their intended times, each known by its client id.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_protocol::ids::ConversationId;
use memchr::memmem;
use tokio::time::Instant;
use uuid::Uuid;

/// Messages that may be on the way at once: more are told apart from older ones no more.
const REMEMBERED: usize = 1 << 18;

/// When each message was meant to be sent. Its number stands in its client id, so that an answer or an event tells which it was.
#[derive(Debug)]
pub(crate) struct Sent {
    run: u64,
    began: Instant,
    next: AtomicU64,
    intended: Vec<AtomicU64>,
}

impl Sent {
    pub(crate) fn new() -> Self {
        Self {
            // The variant and version bits of RFC 9562 (a UUIDv8, whose other bits are ours).
            run: (rand::random::<u64>() & !0xf000) | 0x8000,
            began: Instant::now(),
            next: AtomicU64::new(0),
            intended: (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The client id of a message that is meant to be sent at `intended`.
    pub(crate) fn next(&self, intended: Instant) -> Uuid {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 2);
        let since = intended.saturating_duration_since(self.began).as_micros();
        if let Some(slot) = self.slot(number) {
            slot.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Uuid::from_u64_pair(self.run, number | (1 << 63))
    }

    /// Messages that were sent.
    pub(crate) fn count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// How long ago the message of this client id was meant to be sent; `None` of another run's.
    pub(crate) fn took(&self, client_id: Uuid) -> Option<Duration> {
        let (run, number) = client_id.as_u64_pair();
        let slot = self.slot(number & (u64::MAX >> 2))?;
        let intended = self.began + Duration::from_micros(slot.load(Ordering::Relaxed));
        (run == self.run).then(|| intended.elapsed())
    }

    /// As [`Self::took`], of the message that an answer (`"id"`) or an event (`"clientId"`) is about.
    pub(crate) fn took_by(&self, payload: &[u8], field: &memmem::Finder<'_>) -> Option<Duration> {
        self.took(Self::id_in(payload, field)?)
    }

    /// The client id that stands behind `field`.
    pub(crate) fn id_in(payload: &[u8], field: &memmem::Finder<'_>) -> Option<Uuid> {
        let behind = payload.get(field.find(payload)? + field.needle().len()..)?;
        let text = behind.get(..uuid::fmt::Hyphenated::LENGTH)?;
        Uuid::try_parse_ascii(text).ok()
    }

    /// Which message of its run a client id names.
    pub(crate) fn number(client_id: Uuid) -> u64 {
        client_id.as_u64_pair().1 & (u64::MAX >> 2)
    }

    #[expect(clippy::cast_possible_truncation, reason = "taken modulo a usize")]
    fn slot(&self, number: u64) -> Option<&AtomicU64> {
        self.intended.get(number as usize % REMEMBERED)
    }
}

/// Points in time, evenly spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    from: Instant,
    each: Duration,
    offset: Duration,
}

impl Pace {
    /// `rate` a second from `from` on, as the `part`-th of `parts` that alternate.
    pub(crate) fn new(from: Instant, rate: f64, part: usize, parts: usize) -> Self {
        let each = Duration::from_secs_f64(parts as f64 / rate);
        Self {
            from,
            each,
            offset: each.mul_f64(part as f64 / parts as f64),
        }
    }

    /// The `number`-th.
    pub(crate) fn at(&self, number: u32) -> Instant {
        self.from + self.offset + self.each * number
    }
}

/// A `send` frame without parsing or encoding anything: only the ids differ.
pub(crate) fn send_frame(client_id: Uuid, conversation: ConversationId, text: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"type":"send","id":"{client_id}","conversationId":"{conversation}","kind":"text","content":{{"text":"{text}"}}}}"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_is_known_by_its_client_id_wherever_it_stands() {
        let sent = Sent::new();
        let id = sent.next(Instant::now());
        tokio::time::advance(Duration::from_millis(3)).await;
        let other = sent.next(Instant::now());
        let event = format!(r#"{{"type":"message.created","data":{{"clientId":"{id}"}}}}"#);
        let finder = memmem::Finder::new(br#""clientId":""#);
        let took = sent.took_by(event.as_bytes(), &finder);
        assert_eq!(took, Some(Duration::from_millis(3)));
        assert_eq!(sent.took(other), Some(Duration::ZERO));
        assert_eq!(sent.took(Uuid::now_v7()), None);
        assert_eq!(sent.count(), 2);
        assert_eq!(id.get_version_num(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn parts_alternate_evenly() {
        let from = Instant::now();
        let at = |part, number| Pace::new(from, 1000.0, part, 4).at(number) - from;
        assert_eq!(at(0, 0), Duration::ZERO);
        assert_eq!(at(3, 0), Duration::from_millis(3));
        assert_eq!(at(1, 2), Duration::from_millis(9));
    }
}
