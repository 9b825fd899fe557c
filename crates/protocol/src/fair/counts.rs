//! How many things each tenant has, and each of its users.

use rustc_hash::FxHashMap;

use super::Owner;
use crate::ids::{TenantId, UserId};

/// Things by tenant and user. Who has none is forgotten.
#[derive(Debug, Default)]
pub struct Counts {
    all: usize,
    tenants: FxHashMap<TenantId, OfTenant>,
}

#[derive(Debug, Default)]
struct OfTenant {
    all: usize,
    users: FxHashMap<UserId, usize>,
}

impl Counts {
    /// Returns how many there are.
    #[must_use]
    pub const fn all(&self) -> usize {
        self.all
    }

    /// Returns how many a tenant has, and how many of those a user.
    #[must_use]
    pub fn of(&self, tenant: &TenantId, user: &UserId) -> (usize, usize) {
        let Some(of_tenant) = self.tenants.get(tenant) else {
            return (0, 0);
        };
        let of_user = of_tenant.users.get(user).copied();
        (of_tenant.all, of_user.unwrap_or_default())
    }

    /// Returns how many a tenant has.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).map_or(0, |of| of.all)
    }

    /// One more of an owner's.
    pub fn add(&mut self, owner: &Owner) {
        self.all += 1;
        let of_tenant = self.tenants.entry(owner.tenant.clone()).or_default();
        of_tenant.all += 1;
        *of_tenant.users.entry(owner.user.clone()).or_default() += 1;
    }

    /// One less of an owner's, where it has any.
    pub fn remove(&mut self, owner: &Owner) {
        let Some(of_tenant) = self.tenants.get_mut(&owner.tenant) else {
            return;
        };
        let Some(of_user) = of_tenant.users.get_mut(&owner.user) else {
            return;
        };
        self.all -= 1;
        of_tenant.all -= 1;
        *of_user -= 1;
        if *of_user == 0 {
            of_tenant.users.remove(&owner.user);
        }
        if of_tenant.all == 0 {
            self.tenants.remove(&owner.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_without_anything_are_forgotten() {
        let owner = |user: &str| Owner {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        };
        let mut counts = Counts::default();
        for user in ["ann", "ann", "bob"] {
            counts.add(&owner(user));
        }
        let ann = owner("ann");
        assert_eq!(counts.of(&ann.tenant, &ann.user), (3, 2));
        for user in ["bob", "ann", "ann", "ann"] {
            counts.remove(&owner(user));
        }
        assert_eq!(counts.all(), 0);
        assert!(counts.tenants.is_empty());
    }
}
