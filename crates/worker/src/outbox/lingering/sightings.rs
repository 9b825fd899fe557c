//! Since when this worker has seen rows of the outbox, by its own clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sightings that are kept: of more, every second one is forgotten, so that of a long outage ages are told less exactly, and none too high.
const MAX_SIGHTINGS: usize = 4096;

/// The highest ids that this worker has seen, each with when that was first.
///
/// Ids are drawn in order, so that a row was there when one with a higher id was seen, but for a moment. No clock of Postgres or of another
/// worker decides.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    highest: VecDeque<(Instant, i64)>,
    /// Below this one all were published when it was looked last.
    published_below: i64,
}

impl Sightings {
    /// The highest id is `top` now, and the lowest of those that are not published `oldest`. Says whether what was known is void: it is another
    /// Postgres, with less, or what was published is to be published again.
    pub(super) fn note(&mut self, top: i64, oldest: Option<i64>, now: Instant) -> bool {
        let is_less = self.highest.back().is_some_and(|(_, last)| *last > top);
        let is_back = oldest.is_some_and(|oldest| oldest < self.published_below);
        let is_void = is_less || is_back;
        if is_void {
            self.highest.clear();
        }
        self.published_below = oldest.unwrap_or(top.saturating_add(1));
        if self.highest.back().is_none_or(|(_, last)| *last < top) {
            self.highest.push_back((now, top));
        }
        let is_over = |id: i64| oldest.is_none_or(|oldest| id < oldest);
        while self.highest.len() > 1 && self.highest.front().is_some_and(|(_, id)| is_over(*id)) {
            self.highest.pop_front();
        }
        if self.highest.len() > MAX_SIGHTINGS {
            let mut is_kept = self.highest.len().is_multiple_of(2);
            self.highest.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        is_void
    }

    /// Rows up to this id have been there for so long; none where no row has.
    pub(super) fn seen_for(&self, age: Duration, now: Instant) -> Option<i64> {
        let mut old = self.highest.iter().rev();
        let old = old.find(|(at, _)| now.saturating_duration_since(*at) >= age);
        old.map(|(_, id)| *id)
    }

    /// For how long the row with this id has been there at least.
    pub(super) fn age(&self, id: i64, now: Instant) -> Duration {
        let at = self.highest.iter().find(|(_, top)| *top >= id);
        at.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn age_counts_from_first_sight() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        sightings.note(5, Some(3), start);
        assert_eq!(sightings.seen_for(2 * SECOND, start), None);
        sightings.note(7, Some(3), start + SECOND);
        let now = start + 2 * SECOND;
        sightings.note(7, Some(3), now);
        assert_eq!(sightings.seen_for(2 * SECOND, now), Some(5));
        assert_eq!(sightings.age(3, now), 2 * SECOND);
        assert_eq!(sightings.age(6, now), SECOND);
        assert_eq!(sightings.age(8, now), Duration::ZERO);
        // The first are published: the next one is as old as it is.
        sightings.note(7, Some(6), now);
        assert_eq!(sightings.seen_for(2 * SECOND, now), None);
        assert_eq!(sightings.age(6, now), SECOND);
    }

    #[test]
    fn row_to_be_published_again_is_new() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        assert!(!sightings.note(5, Some(3), start));
        assert!(!sightings.note(5, None, start + SECOND));
        let now = start + 60 * SECOND;
        assert!(sightings.note(5, Some(2), now), "the stream lost it");
        assert_eq!(sightings.seen_for(SECOND, now), None);
        assert!(!sightings.note(6, Some(2), now + SECOND));
        assert_eq!(sightings.age(2, now + SECOND), SECOND);
    }

    #[test]
    fn another_postgres_with_less_begins_anew() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        assert!(!sightings.note(50, Some(1), start));
        assert!(sightings.note(3, Some(1), start + 60 * SECOND));
        assert_eq!(sightings.seen_for(SECOND, start + 60 * SECOND), None);
        assert_eq!(sightings.age(1, start + 61 * SECOND), SECOND);
    }

    #[test]
    fn long_outage_takes_bounded_memory() {
        let start = Instant::now();
        let mut sightings = Sightings::default();
        let hours = 20_000;
        for id in 1..=hours {
            sightings.note(id, Some(1), start + SECOND * u32::try_from(id).unwrap());
        }
        assert!(sightings.highest.len() <= MAX_SIGHTINGS);
        let now = start + SECOND * u32::try_from(hours).unwrap();
        for id in [1, 777, 12_345, hours] {
            let (told, is) = (
                sightings.age(id, now),
                SECOND * u32::try_from(hours - id).unwrap(),
            );
            assert!(
                told <= is && is - told <= is / 16,
                "{id}: {told:?} for {is:?}"
            );
        }
    }
}
