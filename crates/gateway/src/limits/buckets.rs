//! The buckets of one scope, bounded in number.
//!
//! A bucket that is full again is as good as none, and is forgotten within a second; so there are as many as different keys
//! came within `burst / rate` seconds. Where that is more than [`MOST`], the others share [`SHARED`] buckets until there
//! are fewer again: whoever floods from ever new addresses gets to use those, and no more memory. What is exceeded is
//! exceeded by what arrives between two sweeps. A key is kept as a hash under a secret of the process, so that its length
//! does not count and nobody can choose whom to collide with.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::rates::Rate;
use super::{Refusal, Scope, Standing};

/// Buckets that keys have of their own.
const MOST: usize = 1 << 18;
/// Buckets that keys share beyond that.
const SHARED: u64 = 1 << 12;

/// The buckets of one scope.
pub(super) struct Buckets<C: Clock = DefaultClock> {
    scope: Scope,
    rate: Rate,
    secret: RandomState,
    limiter: RateLimiter<u64, DashMapStateStore<u64>, C, StateInformationMiddleware>,
    clock: C,
    crowded: AtomicBool,
}

impl<C: Clock> std::fmt::Debug for Buckets<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets")
            .field("scope", &self.scope)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(scope: Scope, rate: Rate) -> Self {
        Self::with_clock(scope, rate, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn with_clock(scope: Scope, rate: Rate, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            scope,
            rate,
            secret: RandomState::new(),
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()),
            clock,
            crowded: AtomicBool::new(false),
        }
    }
}

impl<C: Clock> Buckets<C> {
    pub(super) const fn scope(&self) -> Scope {
        self.scope
    }

    /// Takes a token out of a key's bucket, or says when there is one again.
    pub(super) fn charge(&self, key: &impl Hash) -> Result<Standing, Refusal> {
        let mut bucket = self.secret.hash_one(key);
        if self.crowded.load(Ordering::Relaxed) {
            bucket %= SHARED;
        }
        let standing = |remaining| Standing {
            scope: self.scope,
            rate: self.rate,
            remaining,
        };
        match self.limiter.check_key(&bucket) {
            Ok(state) => Ok(standing(state.remaining_burst_capacity())),
            Err(until) => Err(Refusal {
                standing: standing(0),
                wait: until.wait_time_from(self.clock.now()),
            }),
        }
    }

    /// Forgets the buckets that are full again; says how many there still are.
    pub(super) fn sweep(&self) -> usize {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        let kept = self.limiter.len();
        self.crowded.store(kept >= MOST, Ordering::Relaxed);
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn buckets(per_second: u32, burst: u32) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate::new(per_second, burst).unwrap();
        let buckets = Buckets::with_clock(Scope::User, rate, clock.clone());
        (buckets, clock)
    }

    #[test]
    fn a_bucket_empties_refuses_and_fills_again() {
        let (buckets, clock) = buckets(2, 3);
        let left: Vec<_> = (0..3)
            .map(|_| buckets.charge(&"ann").unwrap().remaining)
            .collect();
        assert_eq!(left, [2, 1, 0]);
        let refusal = buckets.charge(&"ann").unwrap_err();
        assert_eq!(refusal.wait, Duration::from_millis(500));
        assert_eq!(buckets.charge(&"bob").unwrap().remaining, 2);
        clock.advance(Duration::from_millis(499));
        assert_eq!(
            buckets.charge(&"ann").unwrap_err().wait,
            Duration::from_millis(1)
        );
        clock.advance(Duration::from_millis(1));
        assert_eq!(buckets.charge(&"ann").unwrap().remaining, 0);
        clock.advance(Duration::from_secs(60));
        assert_eq!(buckets.charge(&"ann").unwrap().remaining, 2, "never above");
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_are_not() {
        let (buckets, clock) = buckets(1, 4);
        for key in 0..1000 {
            buckets.charge(&key).unwrap();
        }
        clock.advance(Duration::from_millis(1500));
        for _ in 0..4 {
            buckets.charge(&"busy").unwrap();
        }
        assert_eq!(buckets.sweep(), 1001, "within one interval of a token");
        clock.advance(Duration::from_millis(600));
        assert_eq!(buckets.sweep(), 1);
        assert_eq!(buckets.charge(&"busy").map(|_| ()).ok(), None);
    }

    #[test]
    fn a_flood_of_keys_costs_a_bounded_number_of_buckets() {
        let (buckets, clock) = buckets(1, 1000);
        for key in 0..MOST {
            buckets.charge(&key).unwrap();
        }
        assert_eq!(buckets.sweep(), MOST);
        for key in MOST..2 * MOST {
            buckets.charge(&key).unwrap();
        }
        assert!(buckets.sweep() <= MOST + 4096, "{}", buckets.sweep());
        clock.advance(Duration::from_secs(2000));
        assert_eq!(buckets.sweep(), 0);
        let own = buckets.charge(&"ann").unwrap();
        assert_eq!(own.remaining, 999);
    }
}
