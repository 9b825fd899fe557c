//! What is revoked, in memory: looked up for every token, so by hash alone. No IO.

use std::collections::BTreeSet;
use std::sync::Arc;

use confab_auth::Caller;
use confab_protocol::ids::{SessionId, TenantId, UserId};
use confab_protocol::revocation::{Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashMap;
use time::OffsetDateTime;

/// Revocations that are forgotten in one step: whoever looks one up waits for no more.
const MAX_EXPIRED: usize = 256;

/// Every revocation that has not expired.
#[derive(Debug, Default)]
pub(crate) struct RevocationSet {
    tenants: FxHashMap<TenantId, Tenant>,
    /// In the order in which they expire; of one that is kept longer since, its former time stands here as well.
    expiring: BTreeSet<(Timestamp, Key)>,
    /// How many there are.
    count: usize,
}

/// What a revocation is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Session(TenantId, SessionId, Option<UserId>),
    Login(TenantId, Arc<str>),
    User(TenantId, UserId),
}

#[derive(Debug, Default)]
struct Tenant {
    /// By session, with whose it must be; each until when it is kept.
    sessions: FxHashMap<SessionId, Vec<(Option<UserId>, Timestamp)>>,
    /// By login; until when it is kept.
    logins: FxHashMap<Arc<str>, Timestamp>,
    users: FxHashMap<UserId, Before>,
}

/// Of a user's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Before {
    /// Those issued before this time are revoked.
    issued: Timestamp,
    kept_until: Timestamp,
}

impl RevocationSet {
    /// Takes a revocation; says whether it revokes what was not revoked before. In whatever order they come, and however
    /// often, the set becomes the same.
    pub(super) fn apply(&mut self, revocation: &Revocation) -> bool {
        let kept_until = revocation.expires_at;
        let tenant = self.tenants.entry(revocation.tenant.clone()).or_default();
        let applied = tenant.apply(revocation);
        if applied.kept_longer {
            let key = key(revocation);
            self.expiring.insert((kept_until, key));
        }
        self.count += usize::from(applied.is_added);
        applied.revokes_more
    }

    /// Whether the caller's token is revoked.
    pub(super) fn covers(&self, caller: &Caller) -> bool {
        let Some(tenant) = self.tenants.get(&caller.tenant) else {
            return false;
        };
        let before = tenant.users.get(&caller.user);
        tenant.logins.contains_key(caller.login_session.as_str())
            || before.is_some_and(|before| caller.issued_at < before.issued.to_datetime())
    }

    /// Whether a session of `user` is revoked by its id.
    pub(super) fn covers_session(
        &self,
        tenant: &TenantId,
        user: &UserId,
        session: SessionId,
    ) -> bool {
        let owners = self
            .tenants
            .get(tenant)
            .and_then(|tenant| tenant.sessions.get(&session));
        owners.is_some_and(|owners| {
            owners
                .iter()
                .any(|(owner, _)| owner.as_ref().is_none_or(|owner| owner == user))
        })
    }

    /// Forgets some of what nothing is left of that it could cover; says whether there may be more.
    pub(super) fn expire(&mut self, now: OffsetDateTime) -> bool {
        for _ in 0..MAX_EXPIRED {
            let first = self.expiring.first();
            if first.is_none_or(|(until, _)| until.to_datetime() > now) {
                return false;
            }
            if let Some((until, key)) = self.expiring.pop_first() {
                self.forget(until, key);
            }
        }
        true
    }

    /// Forgets a revocation that is kept until then and no longer.
    fn forget(&mut self, until: Timestamp, key: Key) {
        let (Key::Session(id, ..) | Key::Login(id, _) | Key::User(id, _)) = &key;
        let id = id.clone();
        let Some(tenant) = self.tenants.get_mut(&id) else {
            return;
        };
        self.count -= usize::from(tenant.forget(until, key));
        if tenant.is_empty() {
            self.tenants.remove(&id);
        }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }
}

fn key(revocation: &Revocation) -> Key {
    let tenant = revocation.tenant.clone();
    match &revocation.target {
        RevocationTarget::Session { session, user } => Key::Session(tenant, *session, user.clone()),
        RevocationTarget::Login(login) => Key::Login(tenant, login.as_str().into()),
        RevocationTarget::User { user, .. } => Key::User(tenant, user.clone()),
    }
}

/// What taking a revocation did.
#[derive(Debug, Clone, Copy)]
struct Applied {
    is_added: bool,
    revokes_more: bool,
    kept_longer: bool,
}

impl Applied {
    const ADDED_ONLY: Self = Self {
        is_added: true,
        revokes_more: true,
        kept_longer: true,
    };

    /// It was there, and is kept until the later of both times.
    fn again(kept: &mut Timestamp, until: Timestamp, revokes_more: bool) -> Self {
        let kept_longer = until > *kept;
        *kept = until.max(*kept);
        Self {
            is_added: false,
            revokes_more,
            kept_longer,
        }
    }
}

impl Tenant {
    fn apply(&mut self, revocation: &Revocation) -> Applied {
        let until = revocation.expires_at;
        match &revocation.target {
            RevocationTarget::Session { session, user } => {
                let owners = self.sessions.entry(*session).or_default();
                if let Some((_, kept)) = owners.iter_mut().find(|(owner, _)| owner == user) {
                    return Applied::again(kept, until, false);
                }
                owners.push((user.clone(), until));
                Applied::ADDED_ONLY
            }
            RevocationTarget::Login(login) => {
                if let Some(kept) = self.logins.get_mut(login.as_str()) {
                    return Applied::again(kept, until, false);
                }
                self.logins.insert(login.as_str().into(), until);
                Applied::ADDED_ONLY
            }
            RevocationTarget::User {
                user,
                issued_before,
            } => {
                let issued = issued_before.unwrap_or(revocation.created_at);
                if let Some(before) = self.users.get_mut(user) {
                    let grew = issued > before.issued;
                    before.issued = issued.max(before.issued);
                    return Applied::again(&mut before.kept_until, until, grew);
                }
                let before = Before {
                    issued,
                    kept_until: until,
                };
                self.users.insert(user.clone(), before);
                Applied::ADDED_ONLY
            }
        }
    }

    /// Forgets what is kept until then and no longer; says whether it was there.
    fn forget(&mut self, until: Timestamp, key: Key) -> bool {
        match key {
            Key::Session(_, session, user) => {
                let Some(owners) = self.sessions.get_mut(&session) else {
                    return false;
                };
                let before = owners.len();
                owners.retain(|(owner, kept)| *owner != user || *kept > until);
                let is_forgotten = owners.len() < before;
                if owners.is_empty() {
                    self.sessions.remove(&session);
                }
                is_forgotten
            }
            Key::Login(_, login) => {
                let is_over = self.logins.get(&login).is_some_and(|kept| *kept <= until);
                is_over && self.logins.remove(&login).is_some()
            }
            Key::User(_, user) => {
                let before = self.users.get(&user);
                let is_over = before.is_some_and(|before| before.kept_until <= until);
                is_over && self.users.remove(&user).is_some()
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.logins.is_empty() && self.users.is_empty()
    }
}

#[cfg(test)]
mod tests;
