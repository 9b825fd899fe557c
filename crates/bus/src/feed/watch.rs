//! Whether the stream is still the one that was read, as far as it was read.

use confab_protocol::ids::EventId;
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};

use crate::topology::StreamState;

/// A discontinuity of the stream that the feed reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDiscontinuity {
    /// The stream is another: it was erased and made anew.
    Recreated,
    /// The stream lost its tail: it ends below what was read.
    TailLost,
    /// The stream lost its tail and grew again: another event stands where the last one read stood.
    Replaced,
    /// Events expired or were deleted before they were read.
    Skipped,
    /// Another process found a break.
    Announced,
    /// Messages were dropped between server and reader.
    Dropped,
    /// The stream has events that the consumer does not give.
    Stalled,
}

impl StreamDiscontinuity {
    /// The break's name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "recreated",
            Self::TailLost => "tail_lost",
            Self::Replaced => "replaced",
            Self::Skipped => "skipped",
            Self::Announced => "announced",
            Self::Dropped => "dropped",
            Self::Stalled => "stalled",
        }
    }
}

/// The position up to which the stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// The stream's creation time.
    pub(crate) created: OffsetDateTime,
    /// The last sequence read.
    pub(crate) seq: u64,
    /// The event there; none where the position is before the first event, or what was there is no event.
    pub(crate) id: Option<EventId>,
}

impl StreamPosition {
    /// Compares with the stream's state and the event that now stands at [`Self::seq`].
    pub(crate) fn compare(
        &self,
        stream: &StreamState,
        there: Option<EventId>,
    ) -> Option<StreamDiscontinuity> {
        if stream.created != self.created {
            return Some(StreamDiscontinuity::Recreated);
        }
        if stream.last < self.seq {
            return Some(StreamDiscontinuity::TailLost);
        }
        if stream.first > self.seq + 1 {
            return Some(StreamDiscontinuity::Skipped);
        }
        // Only what still is in the stream can be compared: a remembered message that merely expired is no break.
        let comparable = self.seq > 0 && stream.first <= self.seq && self.id.is_some();
        (comparable && there != self.id).then_some(StreamDiscontinuity::Replaced)
    }
}

/// Time for which the stream may have events while the consumer gives none: one that is gone is noticed and made again by the library in about
/// that time, where it can be.
const MAX_STALL: Duration = Duration::from_secs(8);

/// Since when the stream has had more than was read, while nothing was read on a connection that stood.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<(ReadProgress, Instant)>);

/// The sequence up to which was read, and the connection's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadProgress {
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
}

impl Stall {
    /// Takes note of what was read and of the `last` sequence of the stream. Says whether the consumer has given nothing for too long.
    pub(crate) fn note(&mut self, read: ReadProgress, last: u64, now: Instant) -> bool {
        match self.0 {
            Some((before, since)) if before == read && last > read.seq => {
                now.saturating_duration_since(since) >= MAX_STALL
            }
            _ => {
                self.0 = (last > read.seq).then_some((read, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_is_more_to_read_and_nothing_read() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        let read = |seq| ReadProgress { seq, epoch: 1 };
        // What is read lags behind, and moves.
        assert!(!stall.note(read(10), 12, at(0)));
        assert!(!stall.note(read(11), 90, at(60)));
        assert!(!stall.note(read(90), 90, at(65)));
        // Nothing is there to be read, for however long.
        assert!(!stall.note(read(90), 90, at(200)));
        assert!(!stall.note(read(90), 91, at(205)));
        assert!(!stall.note(read(90), 92, at(210)));
        assert!(stall.note(read(90), 92, at(215)));
        let anew = ReadProgress { seq: 90, epoch: 2 };
        assert!(!stall.note(anew, 92, at(216)), "on another connection");
        assert!(!stall.note(read(92), 92, at(217)), "it goes on");
    }

    fn id(n: u128) -> Option<EventId> {
        Some(EventId(uuid::Uuid::from_u128(n)))
    }

    #[test]
    fn discontinuity_is_distinguished_from_growth_and_expiry() {
        let created = OffsetDateTime::UNIX_EPOCH;
        let read = StreamPosition {
            created,
            seq: 10,
            id: id(1),
        };
        let stream = |first, last| StreamState {
            created,
            first,
            last,
            messages: last + 1 - first,
        };
        assert_eq!(read.compare(&stream(1, 10), id(1)), None);
        assert_eq!(read.compare(&stream(10, 99), id(1)), None);
        assert_eq!(
            read.compare(&stream(11, 10), None),
            None,
            "all expired, nothing unread"
        );
        assert_eq!(read.compare(&stream(11, 20), None), None);
        assert_eq!(
            read.compare(&stream(1, 9), None),
            Some(StreamDiscontinuity::TailLost)
        );
        assert_eq!(
            read.compare(&stream(1, 12), id(2)),
            Some(StreamDiscontinuity::Replaced)
        );
        assert_eq!(
            read.compare(&stream(1, 12), None),
            Some(StreamDiscontinuity::Replaced)
        );
        assert_eq!(
            read.compare(&stream(12, 20), None),
            Some(StreamDiscontinuity::Skipped)
        );
        let other = StreamState {
            created: created + time::Duration::SECOND,
            ..stream(1, 10)
        };
        assert_eq!(
            read.compare(&other, id(1)),
            Some(StreamDiscontinuity::Recreated)
        );
        let nothing = StreamPosition {
            created,
            seq: 0,
            id: None,
        };
        assert_eq!(nothing.compare(&stream(1, 0), None), None);
    }
}
