//! Who has a large part of messages that are on the way, which others would wait for. No IO.

use confab_protocol::fair::{Counts, Owner};
use confab_protocol::ids::{TenantId, UserId};
use confab_protocol::limits;
use rustc_hash::FxHashMap;

use super::super::submission::Submission;

/// From so many commands or bytes on, what a user or a tenant has in a message is a large part: less ends soon.
const MIN_COMMANDS: usize = 65;
const MIN_BYTES: usize = limits::MAX_RPC_BYTES / 8;

/// Who has a large part of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::workers) struct LargeParts {
    users: Vec<Owner>,
    tenants: Vec<TenantId>,
}

/// In how many messages on the way each has a large part.
#[derive(Debug, Default)]
pub(super) struct Large {
    users: Counts,
    tenants: FxHashMap<TenantId, usize>,
}

#[derive(Debug, Default)]
struct Size {
    commands: usize,
    bytes: usize,
}

impl Size {
    const fn add(&mut self, submission: &Submission, count: usize) {
        self.commands += count;
        self.bytes += submission.weight;
    }

    const fn is_large(&self) -> bool {
        self.commands >= MIN_COMMANDS || self.bytes >= MIN_BYTES
    }
}

impl LargeParts {
    /// Of a message with these.
    pub(super) fn of(submissions: &[Submission]) -> Self {
        let mut whole = Size::default();
        for submission in submissions {
            whole.add(submission, submission.count());
        }
        if !whole.is_large() {
            return Self::default();
        }
        let mut users: FxHashMap<&Owner, Size> = FxHashMap::default();
        let mut tenants: FxHashMap<&TenantId, Size> = FxHashMap::default();
        for submission in submissions {
            let (owner, count) = (submission.owner(), submission.count());
            users.entry(owner).or_default().add(submission, count);
            let of_tenant = tenants.entry(&owner.tenant).or_default();
            of_tenant.add(submission, count);
        }
        users.retain(|_, size| size.is_large());
        tenants.retain(|_, size| size.is_large());
        Self {
            users: users.into_keys().cloned().collect(),
            tenants: tenants.into_keys().cloned().collect(),
        }
    }
}

impl Large {
    pub(super) fn begin(&mut self, parts: &LargeParts) {
        for owner in &parts.users {
            self.users.add(owner);
        }
        for tenant in &parts.tenants {
            *self.tenants.entry(tenant.clone()).or_default() += 1;
        }
    }

    pub(super) fn end(&mut self, parts: &LargeParts) {
        for owner in &parts.users {
            self.users.remove(owner);
        }
        for tenant in &parts.tenants {
            if let Some(messages) = self.tenants.get_mut(tenant) {
                *messages = messages.saturating_sub(1);
                if *messages == 0 {
                    self.tenants.remove(tenant);
                }
            }
        }
    }

    /// Whether nobody has a large part of any.
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.users.all() == 0
    }

    /// Whether a user may have commands in one more of `in_flight` messages: with large parts in half of them, or its tenant in three
    /// quarters, it leaves the others to others.
    pub(super) fn allows(&self, tenant: &TenantId, user: &UserId, in_flight: usize) -> bool {
        let (_, of_user) = self.users.of(tenant, user);
        of_user < user_share(in_flight) && self.allows_some_of(tenant, in_flight)
    }

    /// Whether some user of a tenant may.
    pub(super) fn allows_some_of(&self, tenant: &TenantId, in_flight: usize) -> bool {
        let of_tenant = self.tenants.get(tenant).copied().unwrap_or_default();
        // One user's share is never all of its tenant's, where there are several messages.
        let share = (in_flight * 3 / 4).max(user_share(in_flight) + 1);
        of_tenant < share.min(in_flight.max(1))
    }
}

fn user_share(in_flight: usize) -> usize {
    (in_flight / 2).max(1)
}
