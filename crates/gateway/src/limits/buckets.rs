//! The token buckets of one scope, bounded in number.
//!
//! A charge needs one token and may take more: what it takes beyond what is there is a debt, which the next charges wait for. So a large
//! price is paid in full, and never more than a full bucket can bear. A bucket is one time, at which it is full again (GCRA). A bucket
//! that is full is as good as none and is forgotten within a second; so there are as many as different keys came within
//! `burst / rate` seconds. Where that is more than [`MAX_BUCKETS`], the others share [`SHARED_BUCKETS`] until there are fewer again:
//! whoever floods from ever new addresses gets to use those, and no more memory. What is exceeded is exceeded by what arrives between two
//! sweeps. A key is kept as a hash under a secret of the process, so that its length does not count and nobody can choose whom to
//! collide with.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::rates::Rate;
use super::{RateLimitState, Refusal, Scope};

/// Buckets that keys have of their own.
const MAX_BUCKETS: usize = 1 << 18;
/// Buckets that keys share beyond that.
const SHARED_BUCKETS: u64 = 1 << 12;
/// Parts of the buckets, each with a lock of its own.
const BUCKET_SHARDS: usize = 16;

/// The time at which a bucket is full again, in nanoseconds from the buckets' beginning, by the key's hash.
type Shard = FxHashMap<u64, u64>;

/// The buckets of one scope.
pub(super) struct Buckets {
    scope: Scope,
    rate: Rate,
    /// In how many nanoseconds a token comes back.
    interval: u64,
    secret: RandomState,
    shards: [Mutex<Shard>; BUCKET_SHARDS],
    origin: Instant,
    crowded: AtomicBool,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets")
            .field("scope", &self.scope)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(scope: Scope, rate: Rate, origin: Instant) -> Self {
        Self {
            scope,
            rate,
            interval: 1_000_000_000 / u64::from(rate.per_second.get()),
            secret: RandomState::new(),
            shards: Default::default(),
            origin,
            crowded: AtomicBool::new(false),
        }
    }

    pub(super) const fn scope(&self) -> Scope {
        self.scope
    }

    /// Takes `price` tokens out of a key's bucket where it holds one, or says when it holds one again.
    pub(super) fn charge(
        &self,
        key: &impl Hash,
        price: u32,
        now: Instant,
    ) -> Result<RateLimitState, Refusal> {
        let now = self.nanoseconds(now);
        let bucket = self.bucket(key);
        let mut shard = self.shard(bucket);
        let full_at = shard.get(&bucket).map_or(now, |full_at| now.max(*full_at));
        let bearable = u64::from(self.rate.burst.get() - 1) * self.interval;
        if let Some(over @ 1..) = (full_at - now).checked_sub(bearable) {
            return Err(Refusal {
                standing: self.standing(0),
                wait: Duration::from_nanos(over),
            });
        }
        let full_at = full_at + u64::from(price) * self.interval;
        shard.insert(bucket, full_at);
        drop(shard);
        Ok(self.standing(self.remaining(full_at - now)))
    }

    /// Takes `price` tokens out of a key's bucket whatever it holds.
    pub(super) fn take(&self, key: &impl Hash, price: u32, now: Instant) {
        let now = self.nanoseconds(now);
        let bucket = self.bucket(key);
        let mut shard = self.shard(bucket);
        let full_at = shard.entry(bucket).or_default();
        *full_at = now.max(*full_at) + u64::from(price) * self.interval;
    }

    /// How many tokens a key's bucket lacks.
    pub(super) fn missing(&self, key: &impl Hash, now: Instant) -> u64 {
        let now = self.nanoseconds(now);
        let bucket = self.bucket(key);
        let full_at = self.shard(bucket).get(&bucket).copied();
        let left = full_at.unwrap_or_default().saturating_sub(now);
        left.div_ceil(self.interval)
    }

    /// Forgets the buckets that are full again; says how many there still are.
    pub(super) fn sweep(&self, now: Instant) -> usize {
        let now = self.nanoseconds(now);
        let mut kept = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, full_at| *full_at > now);
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
            kept += shard.len();
        }
        self.crowded.store(kept >= MAX_BUCKETS, Ordering::Relaxed);
        kept
    }

    fn bucket(&self, key: &impl Hash) -> u64 {
        let hash = self.secret.hash_one(key);
        if self.crowded.load(Ordering::Relaxed) {
            hash % SHARED_BUCKETS
        } else {
            hash
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder is below the number of shards"
    )]
    fn shard(&self, bucket: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::try_from(bucket).unwrap_or_default() % BUCKET_SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remaining(&self, left: u64) -> u32 {
        let missing = left.div_ceil(self.interval);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.rate.burst.get().saturating_sub(missing)
    }

    const fn standing(&self, remaining: u32) -> RateLimitState {
        RateLimitState {
            scope: self.scope,
            rate: self.rate,
            remaining,
        }
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(per_second: u32, burst: u32) -> (Buckets, Instant) {
        let begin = Instant::now();
        let rate = Rate::new(per_second, burst).unwrap();
        (Buckets::new(Scope::User, rate, begin), begin)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_bucket_empties_refuses_and_fills_again() {
        let (buckets, begin) = buckets(2, 3);
        let charge = |key, at| buckets.charge(&key, 1, begin + ms(at));
        let left: Vec<_> = (0..3)
            .map(|_| charge("ann", 0).unwrap().remaining)
            .collect();
        assert_eq!(left, [2, 1, 0]);
        assert_eq!(charge("ann", 0).unwrap_err().wait, ms(500));
        assert_eq!(charge("bob", 0).unwrap().remaining, 2);
        assert_eq!(charge("ann", 499).unwrap_err().wait, ms(1));
        assert_eq!(charge("ann", 500).unwrap().remaining, 0);
        assert_eq!(charge("ann", 60_000).unwrap().remaining, 2, "never above");
    }

    #[test]
    fn price_above_what_is_there_is_a_debt() {
        let (buckets, begin) = buckets(10, 20);
        let charge = |price, at| buckets.charge(&"ann", price, begin + ms(at));
        assert_eq!(charge(101, 0).unwrap().remaining, 0, "one token suffices");
        assert_eq!(charge(1, 0).unwrap_err().wait, ms(8_200));
        assert_eq!(buckets.missing(&"ann", begin), 101);
        assert_eq!(charge(1, 8_199).unwrap_err().wait, ms(1));
        assert_eq!(charge(1, 8_200).unwrap().remaining, 0);
        buckets.take(&"ann", 5, begin + ms(8_200));
        assert_eq!(charge(1, 8_300).unwrap_err().wait, ms(500));
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_are_not() {
        let (buckets, begin) = buckets(1, 4);
        for key in 0..1000 {
            buckets.charge(&key, 1, begin).unwrap();
        }
        for _ in 0..4 {
            buckets.charge(&"busy", 1, begin + ms(500)).unwrap();
        }
        assert_eq!(buckets.sweep(begin + ms(999)), 1001);
        assert_eq!(buckets.sweep(begin + ms(1_000)), 1);
        let busy = buckets.charge(&"busy", 1, begin + ms(1_000));
        assert!(busy.is_err());
    }

    #[test]
    fn flood_of_keys_has_bounded_buckets() {
        let (buckets, begin) = buckets(1, 1000);
        for key in 0..MAX_BUCKETS {
            buckets.charge(&key, 1, begin).unwrap();
        }
        assert_eq!(buckets.sweep(begin), MAX_BUCKETS);
        for key in MAX_BUCKETS..2 * MAX_BUCKETS {
            // Those that share a bucket empty it.
            let _charged = buckets.charge(&key, 1, begin).is_ok();
        }
        let kept = buckets.sweep(begin);
        assert!(kept <= MAX_BUCKETS + 4096, "{kept}");
        let later = begin + Duration::from_secs(2000);
        assert_eq!(buckets.sweep(later), 0);
        let own = buckets.charge(&"ann", 1, later).unwrap();
        assert_eq!(own.remaining, 999);
    }
}
