//! The keys of what a gateway holds: an account and a session.

use confab_protocol::fair::Owner;
use confab_protocol::ids::{TenantId, UserId};

/// A session on this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) u64);

/// A user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    pub(crate) tenant: TenantId,
    pub(crate) user: UserId,
}

impl Account {
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
        }
    }
}
