//! How fast commands are served at the moment.

use std::time::Duration;

/// A moving average of the time a command takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    seconds_per_event: f64,
}

/// What takes longer says nothing of the pace: the worker or Postgres stood still.
const MAX_OBSERVED: Duration = Duration::from_secs(2);
/// The weight of the newest observation.
const NEWEST_WEIGHT: f64 = 0.2;

impl Pace {
    /// What sends take, until it was observed: in batches, beside each other.
    pub(crate) const fn of_sends() -> Self {
        Self {
            seconds_per_event: 50e-6,
        }
    }

    /// What other commands take.
    pub(crate) const fn of_singles() -> Self {
        Self {
            seconds_per_event: 500e-6,
        }
    }

    /// So many `events` took so long, in one of `lanes` that ran beside each other.
    pub(crate) fn observe(&mut self, events: usize, took: Duration, lanes: usize) {
        if took > MAX_OBSERVED {
            return;
        }
        let each = took.as_secs_f64() / (events.max(1) * lanes.max(1)) as f64;
        self.seconds_per_event += (each - self.seconds_per_event) * NEWEST_WEIGHT;
    }

    /// How long the last of `waiting` events will wait.
    pub(crate) fn expect(&self, waiting: usize) -> Duration {
        Duration::try_from_secs_f64(self.seconds_per_event * waiting as f64)
            .unwrap_or(Duration::MAX)
    }
}
