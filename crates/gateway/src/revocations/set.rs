//! What is revoked, in memory: looked up for every token, so by hash alone. No IO.

use confab_auth::Caller;
use confab_protocol::ids::{SessionId, TenantId, UserId};
use confab_protocol::revocation::{Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashMap;
use time::OffsetDateTime;

/// Every revocation that has not expired.
#[derive(Debug, Default)]
pub(crate) struct RevocationSet {
    tenants: FxHashMap<TenantId, Tenant>,
    /// How many there are.
    count: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    /// By session, with whose it must be; each until when it is kept.
    sessions: FxHashMap<SessionId, Vec<(Option<UserId>, Timestamp)>>,
    /// By login; until when it is kept.
    logins: FxHashMap<String, Timestamp>,
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
        match &revocation.target {
            RevocationTarget::Session { session, user } => {
                let owners = tenant.sessions.entry(*session).or_default();
                match owners.iter_mut().find(|(owner, _)| owner == user) {
                    Some((_, kept)) => {
                        *kept = kept_until.max(*kept);
                        false
                    }
                    None => {
                        owners.push((user.clone(), kept_until));
                        self.count += 1;
                        true
                    }
                }
            }
            RevocationTarget::Login(login) => match tenant.logins.get_mut(login) {
                Some(kept) => {
                    *kept = kept_until.max(*kept);
                    false
                }
                None => {
                    tenant.logins.insert(login.clone(), kept_until);
                    self.count += 1;
                    true
                }
            },
            RevocationTarget::User {
                user,
                issued_before,
            } => {
                let issued = issued_before.unwrap_or(revocation.created_at);
                match tenant.users.get_mut(user) {
                    Some(before) => {
                        let grew = issued > before.issued;
                        before.issued = issued.max(before.issued);
                        before.kept_until = kept_until.max(before.kept_until);
                        grew
                    }
                    None => {
                        let before = Before { issued, kept_until };
                        tenant.users.insert(user.clone(), before);
                        self.count += 1;
                        true
                    }
                }
            }
        }
    }

    /// Whether the caller's token is revoked.
    pub(super) fn covers(&self, caller: &Caller) -> bool {
        let Some(tenant) = self.tenants.get(&caller.tenant) else {
            return false;
        };
        let before = tenant.users.get(&caller.user);
        tenant.logins.contains_key(&caller.login_session)
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

    /// Forgets what nothing is left of that it could cover.
    pub(super) fn expire(&mut self, now: OffsetDateTime) {
        let is_kept = |until: &Timestamp| until.to_datetime() > now;
        self.tenants.retain(|_, tenant| {
            tenant.sessions.retain(|_, owners| {
                owners.retain(|(_, until)| is_kept(until));
                !owners.is_empty()
            });
            tenant.logins.retain(|_, until| is_kept(until));
            tenant.users.retain(|_, before| is_kept(&before.kept_until));
            tenant.len() > 0
        });
        self.count = self.tenants.values().map(Tenant::len).sum();
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }
}

impl Tenant {
    fn len(&self) -> usize {
        let sessions = self.sessions.values().map(Vec::len).sum::<usize>();
        sessions + self.logins.len() + self.users.len()
    }
}

#[cfg(test)]
mod tests;
