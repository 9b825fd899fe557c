//! How much of what may wait in this gateway is whose. No IO.

use confab_protocol::fair::Owner;
use confab_protocol::ids::{TenantId, UserId};
use rustc_hash::FxHashMap;

/// A tenant may take one part in so many of what may wait.
const TENANT_SHARE: usize = 2;
/// A user may take one part in so many.
const USER_SHARE: usize = 4;

/// What waits, in all, of each tenant, and of each user.
#[derive(Debug)]
pub(super) struct Shares {
    limit: Amount,
    all: Amount,
    tenants: FxHashMap<TenantId, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    all: Amount,
    users: FxHashMap<UserId, Amount>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    commands: usize,
    bytes: usize,
}

impl Amount {
    const fn add(&mut self, commands: usize, bytes: usize) {
        self.commands += commands;
        self.bytes += bytes;
    }

    /// Whether nothing is left.
    const fn remove(&mut self, commands: usize, bytes: usize) -> bool {
        self.commands = self.commands.saturating_sub(commands);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.commands == 0
    }

    /// Whether it is below one part in `share` of a limit.
    const fn is_below(self, limit: Self, share: usize) -> bool {
        self.commands < limit.commands.div_ceil(share) && self.bytes < limit.bytes.div_ceil(share)
    }
}

impl Shares {
    pub(super) fn new(commands: usize, bytes: usize) -> Self {
        Self {
            limit: Amount { commands, bytes },
            all: Amount::default(),
            tenants: FxHashMap::default(),
        }
    }

    /// Commands of all.
    pub(super) const fn commands(&self) -> usize {
        self.all.commands
    }

    /// Whether an owner's share, its tenant's and what may wait in all have room.
    pub(super) fn admits(&self, owner: &Owner) -> bool {
        let tenant = self.tenants.get(&owner.tenant);
        let user = tenant.and_then(|tenant| tenant.users.get(&owner.user));
        self.all.is_below(self.limit, 1)
            && tenant.is_none_or(|tenant| tenant.all.is_below(self.limit, TENANT_SHARE))
            && user.is_none_or(|user| user.is_below(self.limit, USER_SHARE))
    }

    pub(super) fn add(&mut self, owner: &Owner, commands: usize, bytes: usize) {
        self.all.add(commands, bytes);
        let tenant = self.tenants.entry(owner.tenant.clone()).or_default();
        tenant.all.add(commands, bytes);
        let user = tenant.users.entry(owner.user.clone()).or_default();
        user.add(commands, bytes);
    }

    pub(super) fn remove(&mut self, owner: &Owner, commands: usize, bytes: usize) {
        self.all.remove(commands, bytes);
        let Some(tenant) = self.tenants.get_mut(&owner.tenant) else {
            return;
        };
        if let Some(user) = tenant.users.get_mut(&owner.user)
            && user.remove(commands, bytes)
        {
            tenant.users.remove(&owner.user);
        }
        if tenant.all.remove(commands, bytes) {
            self.tenants.remove(&owner.tenant);
        }
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
    fn user_takes_quarter_and_tenant_half() {
        let mut shares = Shares::new(100, 1000);
        let (alice, bob, carol) = (owner("a", "alice"), owner("a", "bob"), owner("a", "carol"));
        for user in [&alice, &bob] {
            for _ in 0..25 {
                assert!(shares.admits(user));
                shares.add(user, 1, 1);
            }
            assert!(!shares.admits(user));
        }
        assert!(!shares.admits(&carol), "the tenant has its half");
        let other = owner("b", "alice");
        assert!(shares.admits(&other));
        shares.add(&other, 1, 250);
        assert!(!shares.admits(&other), "by bytes");
        shares.remove(&bob, 5, 5);
        assert!(shares.admits(&bob) && shares.admits(&carol));
        assert_eq!(shares.commands(), 46);
    }

    #[test]
    fn nothing_is_kept_of_owners_with_nothing_waiting() {
        let mut shares = Shares::new(100, 1000);
        for user in 0..10 {
            shares.add(&owner("a", &user.to_string()), 2, 50);
        }
        for user in 0..10 {
            shares.remove(&owner("a", &user.to_string()), 2, 50);
        }
        assert!(shares.tenants.is_empty());
        assert_eq!(shares.all, Amount::default());
    }
}
