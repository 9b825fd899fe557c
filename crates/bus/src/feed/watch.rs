//! Whether the stream is still the one that was read, as far as it was read.

use confab_protocol::ids::EventId;
use time::OffsetDateTime;

use crate::topology::StreamState;

/// How the feed broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
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
}

impl Break {
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
        }
    }
}

/// How far the stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The stream's creation time.
    pub(crate) created: OffsetDateTime,
    /// The last sequence read.
    pub(crate) seq: u64,
    /// The event there; none where the position is before the first event, or what was there is no event.
    pub(crate) id: Option<EventId>,
}

impl Position {
    /// Compares with the stream's state and the event that now stands at [`Self::seq`].
    pub(crate) fn compare(&self, stream: &StreamState, there: Option<EventId>) -> Option<Break> {
        if stream.created != self.created {
            return Some(Break::Recreated);
        }
        if stream.last < self.seq {
            return Some(Break::TailLost);
        }
        if stream.first > self.seq + 1 {
            return Some(Break::Skipped);
        }
        // Only what still is in the stream can be compared: a remembered message that merely expired is no break.
        let comparable = self.seq > 0 && stream.first <= self.seq && self.id.is_some();
        (comparable && there != self.id).then_some(Break::Replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Option<EventId> {
        Some(EventId(uuid::Uuid::from_u128(n)))
    }

    #[test]
    fn every_break_is_told_from_a_stream_that_only_grew_or_expired() {
        let created = OffsetDateTime::UNIX_EPOCH;
        let read = Position {
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
        assert_eq!(read.compare(&stream(1, 9), None), Some(Break::TailLost));
        assert_eq!(read.compare(&stream(1, 12), id(2)), Some(Break::Replaced));
        assert_eq!(read.compare(&stream(1, 12), None), Some(Break::Replaced));
        assert_eq!(read.compare(&stream(12, 20), None), Some(Break::Skipped));
        let other = StreamState {
            created: created + time::Duration::SECOND,
            ..stream(1, 10)
        };
        assert_eq!(read.compare(&other, id(1)), Some(Break::Recreated));
        let nothing = Position {
            created,
            seq: 0,
            id: None,
        };
        assert_eq!(nothing.compare(&stream(1, 0), None), None);
    }
}
