//! Messages at their intended times, each known by its client id.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_protocol::ids::ConversationId;
use memchr::memmem;
use tokio::time::Instant;
use uuid::Uuid;

/// Bits of a client id that tell messages apart which are meant for the same microsecond.
const NUMBER_BITS: u32 = 20;
/// Bits for the microseconds since the run began: 50 days.
const TIME_BITS: u32 = 42;

/// When each message was meant to be sent, which stands in its client id, so that an answer or an event tells how long ago that was,
/// however late it comes and however many came between.
#[derive(Debug)]
pub(crate) struct SendTimes {
    run: u64,
    began: Instant,
    next: AtomicU64,
    /// Microseconds since `began` of the messages that count: from the first on, before the second.
    counts: (AtomicU64, AtomicU64),
    counted: AtomicU64,
}

impl SendTimes {
    pub(crate) fn new() -> Self {
        Self {
            // The version bits of RFC 9562 (a UUIDv8, whose other bits are ours).
            run: (rand::random::<u64>() & !0xf000) | 0x8000,
            began: Instant::now(),
            next: AtomicU64::new(0),
            counts: (AtomicU64::new(0), AtomicU64::new(u64::MAX)),
            counted: AtomicU64::new(0),
        }
    }

    /// From now on only messages count that are meant for this time: not those of the warm-up, whenever their answers come.
    pub(crate) fn count_only(&self, from: Instant, until: Instant) {
        self.counts.0.store(self.micros(from), Ordering::Relaxed);
        self.counts.1.store(self.micros(until), Ordering::Relaxed);
        self.counted.store(0, Ordering::Relaxed);
    }

    /// The client id of a message that is meant to be sent at `intended`.
    pub(crate) fn next(&self, intended: Instant) -> Uuid {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << NUMBER_BITS) - 1);
        let micros = self.micros(intended);
        if self.does_count(micros) {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
        // The variant bits of RFC 9562 are the uppermost two.
        Uuid::from_u64_pair(self.run, (1 << 63) | (micros << NUMBER_BITS) | number)
    }

    /// Messages that were sent and count.
    pub(crate) fn count(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// How long ago the message of this client id was meant to be sent; `None` where it is another run's or does not count.
    pub(crate) fn took(&self, client_id: Uuid) -> Option<Duration> {
        let (run, rest) = client_id.as_u64_pair();
        let micros = (rest & (u64::MAX >> 2)) >> NUMBER_BITS;
        (run == self.run && self.does_count(micros))
            .then(|| (self.began + Duration::from_micros(micros)).elapsed())
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX) & ((1 << TIME_BITS) - 1)
    }

    fn does_count(&self, micros: u64) -> bool {
        let (from, until) = &self.counts;
        (from.load(Ordering::Relaxed)..until.load(Ordering::Relaxed)).contains(&micros)
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
        client_id.as_u64_pair().1 & ((1 << NUMBER_BITS) - 1)
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
    async fn message_is_recognized_by_client_id_anywhere() {
        let sent = SendTimes::new();
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
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    }

    #[tokio::test(start_paused = true)]
    async fn only_messages_intended_for_measured_time_count() {
        let sent = SendTimes::new();
        let second = Duration::from_secs(1);
        let from = Instant::now() + second;
        sent.count_only(from, from + second);
        let ids = [0, 999, 1000, 1999, 2000]
            .map(|millis| sent.next(from - second + Duration::from_millis(millis)));
        tokio::time::advance(Duration::from_secs(600)).await;
        let counted = ids.map(|id| sent.took(id).is_some());
        assert_eq!(counted, [false, false, true, true, false]);
        assert_eq!(sent.took(ids[2]), Some(Duration::from_secs(599)));
        assert_eq!(sent.count(), 2);
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
