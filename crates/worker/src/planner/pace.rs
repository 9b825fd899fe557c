//! How fast events are served at the moment.

use std::time::Duration;

/// A moving average of the time an event takes, in batches large enough to say something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    seconds_per_event: f64,
}

/// The weight of the newest batch.
const NEWEST: f64 = 0.2;

impl Default for Pace {
    fn default() -> Self {
        Self {
            seconds_per_event: 50e-6,
        }
    }
}

impl Pace {
    /// A batch of `events` took so long, one of `lanes` that ran beside each other.
    pub(crate) fn observe(&mut self, events: usize, took: Duration, lanes: usize) {
        let each = took.as_secs_f64() / (events.max(1) * lanes.max(1)) as f64;
        self.seconds_per_event += (each - self.seconds_per_event) * NEWEST;
    }

    /// How long the last of `waiting` events will wait.
    pub(crate) fn expect(&self, waiting: usize) -> Duration {
        Duration::try_from_secs_f64(self.seconds_per_event * waiting as f64)
            .unwrap_or(Duration::MAX)
    }
}
