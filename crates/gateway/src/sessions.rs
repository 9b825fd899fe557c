//! The sessions that are open here: listed to their users, closed when they are revoked.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use confab_auth::Caller;
use confab_bus::sessions::MAX_LISTED_SESSIONS;
use confab_protocol::error::Code;
use confab_protocol::ids::{SessionId, TenantId, UserId};
use confab_protocol::resource::Session;
use confab_protocol::revocation::{Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashMap;
use time::OffsetDateTime;

use crate::delivery::send_queue::SendQueue;

mod directory;
pub(crate) mod records;
mod settings;

pub(crate) use settings::SessionSettings;

pub(crate) use directory::{Directory, run};

/// Every open session of this gateway. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    open: FxHashMap<SessionId, Box<Open>>,
    users: FxHashMap<(TenantId, UserId), Vec<SessionId>>,
    logins: FxHashMap<(TenantId, String), Vec<SessionId>>,
}

#[derive(Debug)]
struct Open {
    /// Who it is, as the token in use says.
    caller: Caller,
    since: Timestamp,
    last_seen: Arc<LastSeen>,
    /// By which it is closed.
    send_queue: Arc<SendQueue>,
}

/// When anything last came from a client, in milliseconds since 1970.
#[derive(Debug)]
struct LastSeen(AtomicI64);

impl LastSeen {
    fn note(&self, now: OffsetDateTime) {
        let milliseconds = now.unix_timestamp() * 1000 + i64::from(now.millisecond());
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn get(&self) -> Timestamp {
        let nanoseconds = i128::from(self.0.load(Ordering::Relaxed)) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds);
        Timestamp::new(at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }
}

/// A session's place among the open ones, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    sessions: Sessions,
    id: SessionId,
    last_seen: Arc<LastSeen>,
}

impl Registered {
    /// The session.
    pub(crate) const fn id(&self) -> SessionId {
        self.id
    }

    /// Notes that something came from the client.
    pub(crate) fn seen(&self) {
        self.last_seen.note(OffsetDateTime::now_utc());
    }

    /// Notes who it is by a fresh token.
    pub(crate) fn renewed(&self, caller: &Caller) {
        self.sessions.lock().renew(self.id, caller);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.lock().leave(self.id, &self.last_seen);
    }
}

impl Sessions {
    /// Gives a session, which closes by its `send_queue`, its place among the open ones.
    pub(crate) fn register(
        &self,
        id: SessionId,
        caller: Caller,
        send_queue: Arc<SendQueue>,
    ) -> Registered {
        let now = OffsetDateTime::now_utc();
        let last_seen = Arc::new(LastSeen(AtomicI64::new(0)));
        last_seen.note(now);
        let open = Open {
            caller,
            since: Timestamp::new(now),
            last_seen: Arc::clone(&last_seen),
            send_queue,
        };
        self.lock().insert(id, open);
        Registered {
            sessions: self.clone(),
            id,
            last_seen,
        }
    }

    /// A user's open sessions here, the newest first, at most [`MAX_LISTED_SESSIONS`].
    pub(crate) fn of(&self, tenant: &TenantId, user: &UserId) -> Vec<Session> {
        let registry = self.lock();
        let key = (tenant.clone(), user.clone());
        let own = registry.users.get(&key).into_iter().flatten();
        let mut listed: Vec<_> = own
            .filter_map(|id| Some(registry.open.get(id)?.listed(*id)))
            .collect();
        drop(registry);
        listed.sort_unstable_by_key(|session| std::cmp::Reverse((session.since, session.id)));
        listed.truncate(MAX_LISTED_SESSIONS);
        listed
    }

    /// Whether this session is open here, and the user's.
    pub(crate) fn has(&self, tenant: &TenantId, user: &UserId, session: SessionId) -> bool {
        let registry = self.lock();
        let open = registry.open.get(&session);
        open.is_some_and(|open| open.caller.tenant == *tenant && open.caller.user == *user)
    }

    /// Closes all sessions, for good; says how many. Their clients may begin others at once.
    pub(crate) fn close_all(&self) -> usize {
        let all: Vec<_> = {
            let registry = self.lock();
            let open = registry.open.values();
            open.map(|open| Arc::clone(&open.send_queue)).collect()
        };
        for send_queue in &all {
            send_queue.close(Code::Unavailable);
        }
        all.len()
    }

    /// Closes the sessions that a revocation covers; says how many.
    pub(crate) fn close_revoked(&self, revocation: &Revocation) -> usize {
        // A send queue has a lock of its own: it is asked behind this one.
        let covered = self.lock().covered(revocation);
        for send_queue in &covered {
            send_queue.close(Code::TokenRevoked);
        }
        covered.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn listed(&self, id: SessionId) -> Session {
        Session {
            id,
            device_id: self.caller.device.clone(),
            login_session_id: self.caller.login_session.clone(),
            since: self.since,
            last_seen_at: self.last_seen.get(),
        }
    }
}

impl Registry {
    /// A session that is resumed here takes the place of its former connection.
    fn insert(&mut self, id: SessionId, open: Open) {
        let _former = self.remove(id);
        let (user, login) = keys(&open.caller);
        // Nearly all have one session and no more.
        let one = || Vec::with_capacity(1);
        self.users.entry(user).or_insert_with(one).push(id);
        self.logins.entry(login).or_insert_with(one).push(id);
        self.open.insert(id, Box::new(open));
    }

    fn remove(&mut self, id: SessionId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        let (user, login) = keys(&open.caller);
        take_out(&mut self.users, &user, id);
        take_out(&mut self.logins, &login, id);
        Some(*open)
    }

    /// The session's place may be another connection's by now, which has a `last_seen` of its own.
    fn leave(&mut self, id: SessionId, last_seen: &Arc<LastSeen>) {
        let open = self.open.get(&id);
        if open.is_some_and(|open| Arc::ptr_eq(&open.last_seen, last_seen)) {
            let _open = self.remove(id);
        }
    }

    fn renew(&mut self, id: SessionId, caller: &Caller) {
        if let Some(open) = self.remove(id) {
            let caller = caller.clone();
            self.insert(id, Open { caller, ..open });
        }
    }

    fn covered(&self, revocation: &Revocation) -> Vec<Arc<SendQueue>> {
        let tenant = &revocation.tenant;
        let ids = match &revocation.target {
            RevocationTarget::Session { session, .. } => Some(std::slice::from_ref(session)),
            RevocationTarget::Login(login) => {
                let key = (tenant.clone(), login.clone());
                self.logins.get(&key).map(Vec::as_slice)
            }
            RevocationTarget::User { user, .. } => {
                let key = (tenant.clone(), user.clone());
                self.users.get(&key).map(Vec::as_slice)
            }
        };
        let named = ids.into_iter().flatten().filter_map(|id| self.open.get(id));
        named
            .filter(|open| covers(revocation, &open.caller))
            .map(|open| Arc::clone(&open.send_queue))
            .collect()
    }
}

/// Whether a session of `caller`'s, found by what the revocation names, is meant.
fn covers(revocation: &Revocation, caller: &Caller) -> bool {
    match &revocation.target {
        RevocationTarget::Session { user, .. } => {
            caller.tenant == revocation.tenant
                && user.as_ref().is_none_or(|user| *user == caller.user)
        }
        RevocationTarget::Login(_) => true,
        RevocationTarget::User { issued_before, .. } => {
            let before = issued_before.unwrap_or(revocation.created_at);
            caller.issued_at < before.to_datetime()
        }
    }
}

fn keys(caller: &Caller) -> ((TenantId, UserId), (TenantId, String)) {
    let user = (caller.tenant.clone(), caller.user.clone());
    let login = (caller.tenant.clone(), caller.login_session.clone());
    (user, login)
}

fn take_out<K: Eq + std::hash::Hash>(
    index: &mut FxHashMap<K, Vec<SessionId>>,
    key: &K,
    id: SessionId,
) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|one| *one != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
