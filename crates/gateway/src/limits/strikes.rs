//! What is borne for a while and then no more.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Refusals of one connection within a time. Holds nothing until there is one.
#[derive(Debug)]
pub(crate) struct Violations {
    most: usize,
    within: Duration,
    times: VecDeque<Instant>,
}

impl Violations {
    /// Bears fewer than `most` within a time.
    pub(crate) const fn new(most: usize, within: Duration) -> Self {
        Self {
            most,
            within,
            times: VecDeque::new(),
        }
    }

    /// Counts one at `now`; says whether it was one too many.
    pub(crate) fn count(&mut self, now: Instant) -> bool {
        while self
            .times
            .front()
            .is_some_and(|first| now.duration_since(*first) > self.within)
        {
            self.times.pop_front();
        }
        self.times.push_back(now);
        self.times.len() >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_within_the_time_adds_up() {
        let mut strikes = Violations::new(3, Duration::from_secs(60));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let counted: Vec<_> = [0, 50, 61, 100, 120, 170]
            .map(|seconds| strikes.count(at(seconds)))
            .into();
        assert_eq!(counted, [false, false, false, true, true, false]);
    }
}
