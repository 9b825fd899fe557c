//! How long to wait before a further try: exponential, with full jitter, so that those who lost one gateway at once do not
//! come back at once.

use std::time::Duration;

/// The bounds, and how often in a row it came to nothing.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max: max.max(min),
            failures: 0,
        }
    }

    /// The next wait: `fraction`, from 0 to 1, of what the failures so far allow.
    pub(super) fn next(&mut self, fraction: f64) -> Duration {
        let most = self.most();
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(fraction.clamp(0.0, 1.0))
    }

    /// The next wait where somebody named one: at least that, and the jitter on top.
    pub(super) fn after(&mut self, named: Option<Duration>, fraction: f64) -> Duration {
        named.unwrap_or_default() + self.next(fraction)
    }

    /// A connection stood for `lived`. One that ended at once is a failure like any other.
    pub(super) fn stood(&mut self, lived: Duration) {
        if lived >= self.max {
            self.failures = 0;
        }
    }

    fn most(&self) -> Duration {
        // 2^31 of any wait is beyond the longest.
        let factor = 1_u32 << self.failures.min(31);
        self.min.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn backoff_doubles_to_bound_with_full_jitter() {
        let mut backoff = Backoff::new(ms(100), ONE_SECOND);
        let waits: Vec<_> = [1.0, 0.5, 1.0, 0.25, 1.0, 0.0]
            .map(|fraction| backoff.next(fraction))
            .into();
        assert_eq!(
            waits,
            [
                ms(100),
                ms(100),
                ms(400),
                ms(200),
                ONE_SECOND,
                Duration::ZERO
            ]
        );
        for _ in 0..100 {
            assert_eq!(backoff.next(1.0), ONE_SECOND);
        }
    }

    #[test]
    fn only_a_connection_that_stood_begins_anew() {
        let mut backoff = Backoff::new(ms(100), ONE_SECOND);
        for _ in 0..10 {
            backoff.next(0.0);
        }
        backoff.stood(ms(999));
        assert_eq!(backoff.next(1.0), ONE_SECOND);
        backoff.stood(ONE_SECOND);
        assert_eq!(backoff.next(1.0), ms(100));
    }

    #[test]
    fn named_delay_is_obeyed_plus_jitter() {
        let mut backoff = Backoff::new(ms(100), ONE_SECOND);
        assert_eq!(backoff.after(Some(ms(700)), 0.5), ms(750));
        assert_eq!(backoff.after(None, 0.5), ms(100));
    }
}
