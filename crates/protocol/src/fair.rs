//! A queue that tenants share, and the users of each tenant: surplus round robin.
//!
//! Each tenant with something queued is served in turn, and within it each user, first in, first out. A turn ends when the quantum is used
//! up; what was taken beyond it is paid in later turns, so that large items are no advantage. (Deficit round robin, Shreedhar and
//! Varghese, 1995, in the variant that needs no item's cost before it is taken.) Pure: no IO, no clock.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::command::Caller;
use crate::ids::{TenantId, UserId};

mod counts;
mod slots;

pub use counts::Counts;
pub use slots::Slots;

/// What a turn is worth, in bytes.
const QUANTUM_BYTES: i64 = 16 * 1024;
/// What an item costs beside its bytes.
const ITEM_COST_BYTES: i64 = 512;

/// Whose share an item counts in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The product.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
}

impl Owner {
    /// The owner of what counts for a tenant and none of its users: the tenant's name stands in a user's place.
    #[must_use]
    pub fn of_tenant(tenant: &TenantId) -> Option<Self> {
        Some(Self {
            tenant: tenant.clone(),
            user: tenant.as_str().parse().ok()?,
        })
    }
}

impl From<&Caller> for Owner {
    fn from(caller: &Caller) -> Self {
        Self {
            tenant: caller.tenant.clone(),
            user: caller.user.clone(),
        }
    }
}

/// Items in turn by tenant, then by user.
#[derive(Debug)]
pub struct FairQueue<T> {
    tenants: Shares<TenantId, Users<T>>,
    len: usize,
}

#[derive(Debug)]
struct Users<T> {
    users: Shares<UserId, VecDeque<T>>,
    len: usize,
}

/// Those who are served in turn, the first in the order being served.
#[derive(Debug)]
struct Shares<K, V> {
    order: VecDeque<K>,
    by_key: FxHashMap<K, Share<V>>,
}

#[derive(Debug)]
struct Share<V> {
    /// Bytes that it may still take in its turn; below zero it took more.
    credit: i64,
    queued: V,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            tenants: Shares::default(),
            len: 0,
        }
    }
}

impl<T> Default for Users<T> {
    fn default() -> Self {
        Self {
            users: Shares::default(),
            len: 0,
        }
    }
}

impl<K, V> Default for Shares<K, V> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            by_key: FxHashMap::default(),
        }
    }
}

impl<T> FairQueue<T> {
    /// Items of all tenants.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if nothing is queued.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item behind the owner's others.
    pub fn push(&mut self, owner: &Owner, item: T) {
        self.user(owner).push_back(item);
    }

    /// Adds an item before the owner's others.
    pub fn push_front(&mut self, owner: &Owner, item: T) {
        self.user(owner).push_front(item);
    }

    /// Takes the next item. What it cost is to be told by [`Self::charge`].
    pub fn pop(&mut self) -> Option<(Owner, T)> {
        // Every tenant with something queued has a user that is allowed: none is looked for.
        self.take(|_, _| true, |_, _| true)
    }

    /// Takes the next item among those of the owners that are allowed. Of a tenant of which none is, no user is looked at.
    pub fn pop_of(
        &mut self,
        allows_some_of: impl Fn(&TenantId) -> bool,
        allows: impl Fn(&TenantId, &UserId) -> bool,
    ) -> Option<(Owner, T)> {
        self.take(
            |tenant, users| allows_some_of(tenant) && users.has_of(tenant, &allows),
            &allows,
        )
    }

    /// Returns true if one of the owners that are allowed has something queued. Of a tenant of which none is, no user is looked at.
    #[must_use]
    pub fn has_of(
        &self,
        allows_some_of: impl Fn(&TenantId) -> bool,
        allows: impl Fn(&TenantId, &UserId) -> bool,
    ) -> bool {
        let mut tenants = self.tenants.by_key.iter();
        tenants
            .any(|(tenant, users)| allows_some_of(tenant) && users.queued.has_of(tenant, &allows))
    }

    /// Returns true if an owner that may take a slot has something queued.
    #[must_use]
    pub fn has_for(&self, slots: &Slots) -> bool {
        self.has_of(
            |tenant| slots.allows_some_of(tenant),
            |tenant, user| slots.allows(tenant, user),
        )
    }

    /// Takes the next item among those of the owners that may take a slot. The slot is not taken.
    pub fn pop_for(&mut self, slots: &Slots) -> Option<(Owner, T)> {
        self.pop_of(
            |tenant| slots.allows_some_of(tenant),
            |tenant, user| slots.allows(tenant, user),
        )
    }

    fn take(
        &mut self,
        is_tenant_served: impl Fn(&TenantId, &Users<T>) -> bool,
        allows: impl Fn(&TenantId, &UserId) -> bool,
    ) -> Option<(Owner, T)> {
        let (tenant, users) = self
            .tenants
            .next(|users| users.len == 0, is_tenant_served)?;
        let is_served = |user: &UserId, _: &_| allows(&tenant, user);
        let (user, items) = users.users.next(VecDeque::is_empty, is_served)?;
        let item = items.pop_front()?;
        users.len -= 1;
        self.len -= 1;
        Some((Owner { tenant, user }, item))
    }

    /// Counts items and bytes that were taken against their owner's share.
    pub fn charge(&mut self, owner: &Owner, items: usize, bytes: usize) {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let cost = items.saturating_mul(ITEM_COST_BYTES).saturating_add(bytes);
        let tenant = self.tenants.share(&owner.tenant);
        tenant.credit = tenant.credit.saturating_sub(cost);
        let user = tenant.queued.users.share(&owner.user);
        user.credit = user.credit.saturating_sub(cost);
    }

    /// Takes all items out, in no particular order.
    pub fn drain(&mut self) -> Vec<(Owner, T)> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn user(&mut self, owner: &Owner) -> &mut VecDeque<T> {
        self.len += 1;
        let users = &mut self.tenants.share(&owner.tenant).queued;
        users.len += 1;
        &mut users.users.share(&owner.user).queued
    }
}

impl<T> Users<T> {
    fn has_of(&self, tenant: &TenantId, allows: impl Fn(&TenantId, &UserId) -> bool) -> bool {
        let mut all = self.users.by_key.iter();
        all.any(|(user, items)| !items.queued.is_empty() && allows(tenant, user))
    }
}

impl<K: Clone + Eq + Hash, V: Default> Shares<K, V> {
    fn share(&mut self, key: &K) -> &mut Share<V> {
        match self.by_key.entry(key.clone()) {
            Entry::Occupied(share) => share.into_mut(),
            Entry::Vacant(share) => {
                self.order.push_back(key.clone());
                share.insert(Share {
                    credit: QUANTUM_BYTES,
                    queued: V::default(),
                })
            }
        }
    }

    /// Whose turn it is among those that are served. Who has nothing queued is forgotten once its debt is paid.
    fn next(
        &mut self,
        is_idle: impl Fn(&V) -> bool,
        is_served: impl Fn(&K, &V) -> bool,
    ) -> Option<(K, &mut V)> {
        let mut passed_over = 0;
        let key = loop {
            if passed_over >= self.order.len() {
                return None;
            }
            let key = self.order.pop_front()?;
            let share = self.by_key.get_mut(&key)?;
            if is_idle(&share.queued) && share.credit >= 0 {
                self.by_key.remove(&key);
                continue;
            }
            if share.credit <= 0 {
                share.credit = share.credit.saturating_add(QUANTUM_BYTES);
                passed_over = 0;
            } else if is_idle(&share.queued) || !is_served(&key, &share.queued) {
                passed_over += 1;
            } else {
                self.order.push_front(key.clone());
                break key;
            }
            self.order.push_back(key);
        };
        let share = self.by_key.get_mut(&key)?;
        Some((key, &mut share.queued))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(tenant: usize, user: usize) -> Owner {
        Owner {
            tenant: format!("t{tenant}").parse().unwrap(),
            user: format!("u{user}").parse().unwrap(),
        }
    }

    #[test]
    fn tenant_flood_delays_others_by_one_turn() {
        let mut queue = FairQueue::default();
        for n in 0..10_000 {
            queue.push(&owner(0, n % 100), 0);
        }
        queue.push(&owner(1, 0), 1);
        let mut before = 0;
        while let Some((owner, tenant)) = queue.pop() {
            queue.charge(&owner, 1, 500);
            if tenant == 1 {
                break;
            }
            before += 1;
        }
        assert!(before <= 17, "{before}");
    }

    #[test]
    fn users_of_a_tenant_take_turns() {
        let mut queue = FairQueue::default();
        for n in 0..1000 {
            queue.push(&owner(0, 0), n);
        }
        queue.push(&owner(0, 1), 5000);
        let served: Vec<_> = std::iter::from_fn(|| {
            let (owner, item) = queue.pop()?;
            queue.charge(&owner, 1, 16 * 1024);
            Some(item)
        })
        .take(3)
        .collect();
        assert_eq!(served, [0, 5000, 1]);
    }

    #[test]
    fn large_item_is_paid_in_later_turns() {
        let mut queue = FairQueue::default();
        for (tenant, bytes) in [(0, 1_000_000), (1, 10_000)] {
            for _ in 0..200 {
                queue.push(&owner(tenant, 0), bytes);
            }
        }
        let mut taken = [0_usize; 2];
        for _ in 0..120 {
            let (owner, bytes) = queue.pop().unwrap();
            taken[usize::from(bytes == 10_000)] += bytes;
            queue.charge(&owner, 1, bytes);
        }
        assert!(taken[0].abs_diff(taken[1]) <= 1_100_000, "{taken:?}");
    }

    #[test]
    fn disallowed_owners_are_passed_over() {
        let mut queue = FairQueue::default();
        for (tenant, user) in [(0, 0), (0, 1), (1, 0)] {
            queue.push(&owner(tenant, user), (tenant, user));
            queue.charge(&owner(tenant, user), 1, 50_000);
        }
        let second = |_: &TenantId, user: &UserId| user.as_str() == "u1";
        assert_eq!(queue.pop_of(|_| true, second).unwrap().1, (0, 1));
        assert!(queue.pop_of(|_| true, second).is_none());
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.drain().len(), 2);
    }

    #[test]
    fn empty_shares_are_forgotten() {
        let mut queue = FairQueue::default();
        for user in 0..100 {
            queue.push(&owner(user % 7, user), ());
        }
        while let Some((owner, ())) = queue.pop() {
            queue.charge(&owner, 1, 100_000);
        }
        assert!(queue.pop().is_none());
        assert!(queue.tenants.by_key.is_empty() && queue.tenants.order.is_empty());
    }

    proptest! {
        #[test]
        fn every_item_comes_once_in_owner_order(pushes in prop::collection::vec((0..4_usize, 0..4_usize, 0..40_000_usize), 1..200)) {
            let mut queue = FairQueue::default();
            for (n, (tenant, user, bytes)) in pushes.iter().enumerate() {
                queue.push(&owner(*tenant, *user), (n, *bytes));
            }
            prop_assert_eq!(queue.len(), pushes.len());
            let mut last = FxHashMap::default();
            let mut count = 0;
            while let Some((owner, (n, bytes))) = queue.pop() {
                queue.charge(&owner, 1, bytes);
                prop_assert!(last.insert(owner, n).is_none_or(|before| before < n));
                count += 1;
            }
            prop_assert_eq!(count, pushes.len());
        }
    }
}
