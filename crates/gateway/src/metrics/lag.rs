//! How far the hub is behind the reader of the feed, by this process' own clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events that are read within so long share one mark.
const MARK_PERIOD: Duration = Duration::from_millis(20);
/// A hub that is further behind, or took no turn for so long, does not keep up.
pub(crate) const MAX_LAG: Duration = Duration::from_secs(3);

/// The age of the oldest event that the hub has not finished. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lag(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    /// When the hub's last turn ended, in milliseconds from the beginning.
    turned_ms: AtomicU64,
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// How many events were read, and how many of them the hub has handed on.
    read: u64,
    finished: u64,
    /// Groups of events that are not finished: the number of the last one, and when the first was read. The channel between the
    /// reader and the hub bounds them.
    groups: VecDeque<(u64, Instant)>,
    /// When the oldest event was read that is still on its way through many subscriptions.
    pushing: Option<Instant>,
}

impl Lag {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Arc::new(Shared {
            began: now,
            turned_ms: AtomicU64::new(0),
            marks: Mutex::default(),
        }))
    }

    /// An event was read.
    pub(crate) fn read(&self, now: Instant) {
        let mut marks = self.marks();
        marks.read += 1;
        let read = marks.read;
        match marks.groups.back_mut() {
            Some((last, first)) if now.duration_since(*first) < MARK_PERIOD => *last = read,
            _ => marks.groups.push_back((read, now)),
        }
    }

    /// The hub ended a turn in which it handed on so many events. `pushing` is when the oldest of those was read that are still on their
    /// way through many subscriptions.
    pub(crate) fn turned(&self, finished: u64, pushing: Option<Instant>, now: Instant) {
        let turned = now.duration_since(self.0.began).as_millis();
        let turned = u64::try_from(turned).unwrap_or(u64::MAX);
        self.0.turned_ms.store(turned, Ordering::Relaxed);
        let mut marks = self.marks();
        marks.finished += finished;
        marks.pushing = pushing;
        let finished = marks.finished;
        while marks
            .groups
            .pop_front_if(|(last, _)| *last <= finished)
            .is_some()
        {}
    }

    /// How long ago the oldest event was read that is not finished. One that waits for an earlier event of its conversation is
    /// finished here: a worker is asked for what is missing.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let marks = self.marks();
        let oldest = marks.groups.front().map(|(_, first)| *first);
        let oldest = oldest.into_iter().chain(marks.pushing).min();
        oldest.map_or(Duration::ZERO, |oldest| now.duration_since(oldest))
    }

    /// Whether the hub takes turns and is not far behind.
    pub(crate) fn keeps_up(&self, now: Instant) -> bool {
        let turned = Duration::from_millis(self.0.turned_ms.load(Ordering::Relaxed));
        let since_turn = now.duration_since(self.0.began).saturating_sub(turned);
        since_turn < MAX_LAG && self.age(now) < MAX_LAG
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn lag_is_age_of_oldest_unfinished_event() {
        let start = Instant::now();
        let lag = Lag::new(start);
        for n in 0..100 {
            lag.read(start + ms(n));
        }
        assert_eq!(lag.age(start + ms(100)), ms(100));
        lag.turned(50, None, start + ms(100));
        let age = lag.age(start + ms(100));
        assert!(age >= ms(50) && age <= ms(50) + MARK_PERIOD, "{age:?}");
        lag.turned(50, Some(start + ms(90)), start + ms(100));
        assert_eq!(lag.age(start + ms(100)), ms(10), "it goes through many");
        lag.turned(0, None, start + ms(100));
        assert_eq!(lag.age(start + ms(1000)), ms(0));
    }

    #[test]
    fn stalled_hub_does_not_keep_up() {
        let start = Instant::now();
        let lag = Lag::new(start);
        lag.turned(0, None, start + ms(1000));
        assert!(lag.keeps_up(start + ms(1000)));
        assert!(!lag.keeps_up(start + ms(1000) + MAX_LAG), "without events");
        lag.read(start + ms(1000));
        let later = start + ms(1000) + MAX_LAG;
        lag.turned(0, None, later);
        assert!(!lag.keeps_up(later), "turns alone are not enough");
        lag.turned(1, None, later);
        assert!(lag.keeps_up(later));
    }

    #[test]
    fn marks_are_few_however_many_events_wait() {
        let start = Instant::now();
        let lag = Lag::new(start);
        for n in 0..100_000 {
            lag.read(start + ms(n / 1000));
        }
        assert!(lag.marks().groups.len() <= 5);
    }
}
