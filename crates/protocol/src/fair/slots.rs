//! What runs at once, by tenant and user: none of them holds all of it.

use super::{Counts, Owner};
use crate::ids::{TenantId, UserId};

/// So many at once, of which a tenant and a user may hold so many.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    of_tenant: usize,
    of_user: usize,
    held: Counts,
}

impl Slots {
    /// So many, of which a tenant and a user may hold so many: at least one.
    #[must_use]
    pub fn new(most: usize, of_tenant: usize, of_user: usize) -> Self {
        Self {
            most,
            of_tenant: of_tenant.max(1),
            of_user: of_user.max(1),
            held: Counts::default(),
        }
    }

    /// Returns how many are held.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.held.all()
    }

    /// Returns how many are not held.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.most.saturating_sub(self.held.all())
    }

    /// Returns how many an owner holds.
    #[must_use]
    pub fn held(&self, owner: &Owner) -> usize {
        self.held.of(&owner.tenant, &owner.user).1
    }

    /// Returns true if an owner may take one.
    #[must_use]
    pub fn allows(&self, tenant: &TenantId, user: &UserId) -> bool {
        let (of_tenant, of_user) = self.held.of(tenant, user);
        self.free() > 0 && of_tenant < self.of_tenant && of_user < self.of_user
    }

    /// Returns how many more an owner may take.
    #[must_use]
    pub fn left(&self, owner: &Owner) -> usize {
        let (of_tenant, of_user) = self.held.of(&owner.tenant, &owner.user);
        let left = self.of_tenant.saturating_sub(of_tenant);
        let left = left.min(self.of_user.saturating_sub(of_user));
        left.min(self.free())
    }

    /// Returns true if some user of a tenant may take one.
    pub(super) fn allows_some_of(&self, tenant: &TenantId) -> bool {
        self.free() > 0 && self.held.of_tenant(tenant) < self.of_tenant
    }

    /// One more is held.
    pub fn take(&mut self, owner: &Owner) {
        self.held.add(owner);
    }

    /// One less is held, where the owner has any.
    pub fn give_back(&mut self, owner: &Owner) {
        self.held.remove(owner);
    }
}
