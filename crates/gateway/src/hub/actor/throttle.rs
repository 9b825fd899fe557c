//! How fast a fan-out to the many subscriptions of a conversation goes: a pause behind each turn, twice as long as that took.
//!
//! A turn wakes as many sessions as it pushed to, and each writes. Turns without pauses would keep the processors for as long as the whole
//! fan-out takes, and every other session's command would wait behind each of its steps. Where more waits than the one fan-out there is no time to rest.

use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio::time::sleep_until;

/// How many times as long as a turn the pause behind it is: a fan-out leaves two thirds of the time to others.
const YIELD_RATIO: u32 = 2;
/// The longest pause: a gateway that is busy with other things does not hold a fan-out up for longer.
const MAX_YIELD: Duration = Duration::from_millis(3);

/// When the next turn begins.
#[derive(Debug, Default)]
pub(super) struct FanOutThrottle {
    /// When the turn before began; none before the first of a fan-out.
    began: Option<Instant>,
    /// When the pause behind it is over; none until the sessions that it woke have run.
    until: Option<Instant>,
}

impl FanOutThrottle {
    /// Waits until the sessions that were woken, and all others, had a turn, and then, where it may rest, for twice as long as that
    /// took. Cancel-safe.
    pub(super) async fn pause(&mut self, may_rest: bool) {
        let Some(began) = self.began else {
            return;
        };
        let until = match self.until {
            Some(until) => until,
            None => {
                yield_now().await;
                let now = Instant::now();
                let took = now.duration_since(began);
                let until = now + (took * YIELD_RATIO).min(MAX_YIELD);
                self.until = Some(until);
                until
            }
        };
        if may_rest {
            sleep_until(until.into()).await;
        }
    }

    /// Whether a turn may begin; then it does.
    pub(super) fn begins(&mut self, may_rest: bool, now: Instant) -> bool {
        let may = match (self.began, self.until) {
            (None, _) => true,
            (Some(_), Some(until)) => until <= now || !may_rest,
            // Something came before the sessions had run: where the loop is busy that is always so.
            (Some(began), None) => !may_rest || now.duration_since(began) >= MAX_YIELD,
        };
        if may {
            (self.began, self.until) = (Some(now), None);
        }
        may
    }

    /// A turn was taken; without another one behind it the fan-out is over.
    pub(super) fn took(&mut self, goes_on: bool) {
        if !goes_on {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn yielding_fan_out_pauses_after_each_chunk() {
        let (mut pace, start) = (FanOutThrottle::default(), Instant::now());
        pace.pause(true).await;
        assert!(pace.begins(true, start));
        pace.took(true);
        assert!(!pace.begins(true, start), "the sessions have not run");
        pace.pause(true).await;
        let until = pace.until.unwrap();
        assert!(until <= Instant::now() + MAX_YIELD);
        assert!(!pace.begins(true, until - Duration::from_nanos(1)));
        assert!(pace.begins(true, until));
        assert!(
            pace.begins(true, until + MAX_YIELD),
            "the feed alone was busy"
        );
        pace.took(false);
        assert!(pace.begins(true, start), "another walk");
    }

    #[tokio::test]
    async fn where_more_waits_none_rests() {
        let (mut pace, start) = (FanOutThrottle::default(), Instant::now());
        assert!(pace.begins(false, start));
        pace.took(true);
        assert!(pace.begins(false, start), "something else came first");
        pace.took(true);
        pace.pause(false).await;
        assert!(pace.begins(false, start));
    }
}
