//! How much is written into the bucket of sessions for each user and tenant, so that nobody fills it. No IO: it takes bytes and the
//! time.

use std::time::{Duration, Instant};

use confab_protocol::fair::Owner;
use confab_protocol::ids::TenantId;
use rustc_hash::FxHashMap;

/// What may be written for a user, and for a tenant.
const OF_USER: Rate = Rate {
    burst_bytes: 2 << 20,
    bytes_per_second: 32 << 10,
};
const OF_TENANT: Rate = Rate {
    burst_bytes: 128 << 20,
    bytes_per_second: 2 << 20,
};
/// How often those are forgotten who may write as much as ever.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst_bytes: u64,
    bytes_per_second: u64,
}

/// What was written for one, less what has been earned since: above the burst nothing more is written.
#[derive(Debug, Clone, Copy)]
struct Debt {
    bytes: u64,
    at: Instant,
}

impl Debt {
    fn left(self, rate: Rate, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(rate.bytes_per_second) / 1000;
        self.bytes.saturating_sub(earned)
    }

    /// How long it takes until something may be written; none where that is now.
    fn wait(self, rate: Rate, now: Instant) -> Option<Duration> {
        let beyond = self.left(rate, now).checked_sub(rate.burst_bytes)?;
        Some(Duration::from_millis(
            (beyond + 1).saturating_mul(1000) / rate.bytes_per_second + 1,
        ))
    }
}

/// What users and tenants have written.
#[derive(Debug)]
pub(crate) struct Rations {
    users: FxHashMap<Owner, Debt>,
    tenants: FxHashMap<TenantId, Debt>,
    swept: Instant,
}

impl Rations {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            users: FxHashMap::default(),
            tenants: FxHashMap::default(),
            swept: now,
        }
    }

    /// How long nothing may be written for the owner; none where it may now.
    pub(crate) fn wait(&self, owner: &Owner, now: Instant) -> Option<Duration> {
        let user = self.users.get(owner);
        let tenant = self.tenants.get(&owner.tenant);
        let of_user = user.and_then(|debt| debt.wait(OF_USER, now));
        of_user.max(tenant.and_then(|debt| debt.wait(OF_TENANT, now)))
    }

    /// So many bytes were written for the owner.
    pub(crate) fn charge(&mut self, owner: &Owner, bytes: usize, now: Instant) {
        self.sweep(now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let charged = |debt: Option<&Debt>, rate| Debt {
            bytes: debt
                .map_or(0, |debt| debt.left(rate, now))
                .saturating_add(bytes),
            at: now,
        };
        let user = charged(self.users.get(owner), OF_USER);
        self.users.insert(owner.clone(), user);
        let tenant = charged(self.tenants.get(&owner.tenant), OF_TENANT);
        self.tenants.insert(owner.tenant.clone(), tenant);
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP_PERIOD {
            return;
        }
        self.swept = now;
        self.users.retain(|_, debt| debt.left(OF_USER, now) > 0);
        self.tenants.retain(|_, debt| debt.left(OF_TENANT, now) > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(tenant: &str, user: &str) -> Owner {
        Owner {
            tenant: tenant.parse().unwrap(),
            user: user.parse().unwrap(),
        }
    }

    #[test]
    fn user_beyond_its_ration_waits_alone() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        let (alice, bob) = (owner("a", "alice"), owner("a", "bob"));
        rations.charge(&alice, 2 << 20, start);
        assert!(
            rations.wait(&alice, start).is_some(),
            "the burst is used up"
        );
        rations.charge(&alice, 320 << 10, start);
        let wait = rations.wait(&alice, start).unwrap();
        let about_ten = Duration::from_secs(10)..=Duration::from_secs(11);
        assert!(about_ten.contains(&wait), "{wait:?}");
        assert_eq!(rations.wait(&alice, start + wait), None);
        assert_eq!(rations.wait(&bob, start), None);
    }

    #[test]
    fn tenant_beyond_its_ration_waits_alone() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        for n in 0..200 {
            let user = owner("a", &format!("user{n}"));
            rations.charge(&user, 1 << 20, start);
        }
        assert!(rations.wait(&owner("a", "other"), start).is_some());
        assert_eq!(rations.wait(&owner("b", "other"), start), None);
    }

    #[test]
    fn who_has_written_nothing_for_long_is_forgotten() {
        let start = Instant::now();
        let mut rations = Rations::new(start);
        rations.charge(&owner("a", "alice"), 1000, start);
        rations.charge(&owner("b", "bob"), 1000, start + SWEEP_PERIOD);
        assert_eq!((rations.users.len(), rations.tenants.len()), (1, 1));
    }
}
