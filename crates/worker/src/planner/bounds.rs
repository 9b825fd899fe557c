//! How much waits, in all, by tenant and by user, and how much more may. Pure.

use std::time::Duration;

use confab_protocol::fair::Owner;
use confab_protocol::ids::TenantId;
use rustc_hash::FxHashMap;

use super::pace::Pace;
use super::queues::Amount;

/// A tenant may have this share of what may wait, and a user that share of it.
const TENANT_SHARE: usize = 2;
const USER_SHARE: usize = 4;
/// So much more may wait apart in all: what some tenants have locked must not fill it for others.
const APART_FACTOR: usize = 4;
/// After how long a refused command is worth another try, at least and at most.
const MIN_RETRY_AFTER: Duration = Duration::from_millis(100);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What waits of one way, and how fast it is served.
#[derive(Debug)]
pub(crate) struct Bounds {
    most: Amount,
    of_tenant: Amount,
    of_user: Amount,
    all: Amount,
    tenants: FxHashMap<TenantId, OfTenant>,
    users: FxHashMap<Owner, Amount>,
    pub(super) pace: Pace,
}

/// What waits of a tenant, and of how many of its users.
#[derive(Debug, Clone, Copy, Default)]
struct OfTenant {
    amount: Amount,
    users: usize,
}

impl Bounds {
    pub(crate) fn new(most: Amount, pace: Pace) -> Self {
        let share = |share: usize| Amount {
            events: most.events / share,
            bytes: most.bytes / share,
        };
        Self {
            most,
            of_tenant: share(TENANT_SHARE),
            of_user: share(USER_SHARE),
            all: Amount::default(),
            tenants: FxHashMap::default(),
            users: FxHashMap::default(),
            pace,
        }
    }

    /// The same for what waits apart: in all several times as much, of a tenant and a user no more.
    pub(super) fn apart(most: Amount) -> Self {
        let bounds = Self::new(most, Pace::of_sends());
        Self {
            most: Amount {
                events: most.events.saturating_mul(APART_FACTOR),
                bytes: most.bytes.saturating_mul(APART_FACTOR),
            },
            ..bounds
        }
    }

    pub(super) const fn all(&self) -> Amount {
        self.all
    }

    /// Whether one more command of the owner finds room, and can be served within its budget. One alone always finds room.
    ///
    /// # Errors
    /// After how long trying again makes sense.
    pub(crate) fn admit(
        &self,
        owner: &Owner,
        more: Amount,
        budget: Duration,
    ) -> Result<(), Duration> {
        let OfTenant {
            amount: tenant,
            users,
        } = self.tenants.get(&owner.tenant).copied().unwrap_or_default();
        let user = self.users.get(owner).copied().unwrap_or_default();
        let is_full = |waiting: Amount, most: Amount| {
            waiting.events > 0
                && (waiting.events + more.events > most.events
                    || waiting.bytes + more.bytes > most.bytes)
        };
        // Users of a tenant take turns, and tenants do: none makes another wait for more than that one has itself.
        let of_tenant = (user.events * users).min(tenant.events);
        let before = (of_tenant * self.tenants.len()).min(self.all.events);
        let wait = self.pace.expect(before);
        let is_refused = is_full(self.all, self.most)
            || is_full(tenant, self.of_tenant)
            || is_full(user, self.of_user)
            || wait > budget;
        if is_refused {
            return Err(wait.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER));
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, owner: &Owner, more: Amount) {
        self.all.add(more);
        let tenant = self.tenants.entry(owner.tenant.clone()).or_default();
        tenant.amount.add(more);
        let user = self.users.entry(owner.clone()).or_default();
        tenant.users += usize::from(user.events == 0);
        user.add(more);
    }

    pub(crate) fn sub(&mut self, owner: &Owner, less: Amount) {
        self.all.sub(less);
        let mut is_last = false;
        if let Some(user) = self.users.get_mut(owner) {
            user.sub(less);
            is_last = user.events == 0;
        }
        if is_last {
            self.users.remove(owner);
        }
        if let Some(tenant) = self.tenants.get_mut(&owner.tenant) {
            tenant.amount.sub(less);
            tenant.users -= usize::from(is_last);
            if tenant.amount.events == 0 {
                self.tenants.remove(&owner.tenant);
            }
        }
    }
}
