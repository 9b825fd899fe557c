//! What one user may have at once at this gateway: connections, openings, and resume tokens that resume nothing. Bounds, not rates: they
//! hold whatever the rate limits are set to.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{TenantId, UserId};
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::buckets::Buckets;
use super::rates::Rate;
use super::{Refusal, Scope};
use crate::metrics::LimitMetrics;

/// Connections of one user that open at once; further ones wait.
const MAX_OPENINGS: usize = 4;
/// How long a connection waits at most until others of its user are open.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Resume tokens that resume nothing, of one user in a second.
const FAILED_RESUMES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
/// The same at once: a user with as many connections as it may have loses all of them when the store of sessions is lost.
const FAILED_RESUMES: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// When one with too many connections may come again, in milliseconds.
const RETRY_DELAY_MS: u64 = 5000;
/// How often what is void is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The bounds of users. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Users(Arc<UserTable>);

#[derive(Debug)]
struct UserTable {
    max_connections: usize,
    users: Mutex<FxHashMap<UserKey, UserBounds>>,
    failed_resumes: Buckets,
    metrics: LimitMetrics,
}

type UserKey = (TenantId, UserId);

#[derive(Debug)]
struct UserBounds {
    connections: usize,
    openings: Arc<Semaphore>,
}

/// A connection's place among its user's, until it is dropped.
#[derive(Debug)]
pub(crate) struct UserConnection {
    users: Users,
    key: UserKey,
    openings: Arc<Semaphore>,
}

/// A connection's place among those of its user that open, until it is dropped.
pub(crate) type OpeningPermit = OwnedSemaphorePermit;

impl Users {
    /// Bounds with so many connections a user.
    pub(crate) fn new(max_connections: usize, metrics: LimitMetrics) -> Self {
        let rate = Rate {
            per_second: FAILED_RESUMES_PER_SECOND,
            burst: FAILED_RESUMES,
        };
        Self(Arc::new(UserTable {
            max_connections,
            users: Mutex::default(),
            failed_resumes: Buckets::new(Scope::ResumeTokens, rate, Instant::now()),
            metrics,
        }))
    }

    /// Gives a connection its place among its user's. One that takes the place of another of them is let in beyond the bound: the other
    /// one ends.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the user has as many as it may have.
    pub(crate) fn connect(
        &self,
        caller: &Caller,
        takes_over: bool,
    ) -> Result<UserConnection, Failure> {
        let key = key(caller);
        let mut users = self.lock();
        let of_user = users.entry(key.clone()).or_insert_with(|| UserBounds {
            connections: 0,
            openings: Arc::new(Semaphore::new(MAX_OPENINGS)),
        });
        if of_user.connections >= self.0.max_connections.max(1) && !takes_over {
            drop(users);
            return Err(self.refuse_connection());
        }
        of_user.connections += 1;
        let openings = Arc::clone(&of_user.openings);
        drop(users);
        Ok(UserConnection {
            users: self.clone(),
            key,
            openings,
        })
    }

    /// Whether no resume token of the user resumed nothing lately.
    pub(crate) fn resumes_well(&self, caller: &Caller) -> bool {
        self.0.failed_resumes.missing(&key(caller), Instant::now()) == 0
    }

    /// Whether one more resume token of the user may be looked up.
    ///
    /// # Errors
    /// `RATE_LIMITED` when too many resumed nothing lately: this one stays good.
    pub(crate) fn may_resume(&self, caller: &Caller) -> Result<(), Failure> {
        let charged = self
            .0
            .failed_resumes
            .charge(&key(caller), 0, Instant::now());
        charged.map(|_standing| ()).map_err(|refusal: Refusal| {
            self.0.metrics.refused(Scope::ResumeTokens.as_str());
            refusal.failure()
        })
    }

    /// A resume token of the user's was looked up for nothing.
    pub(crate) fn resume_failed(&self, caller: &Caller) {
        self.0.failed_resumes.take(&key(caller), 1, Instant::now());
    }

    /// Forgets what is void, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let buckets = &self.0.failed_resumes;
            let kept = buckets.sweep(Instant::now());
            self.0.metrics.buckets(buckets.scope().as_str(), kept);
        }
    }

    fn refuse_connection(&self) -> Failure {
        self.0.metrics.refused("connections");
        let full = "this user has as many connections at this gateway as it may have";
        Failure::new(Code::RateLimited, full).retry_after(RETRY_DELAY_MS)
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<UserKey, UserBounds>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UserConnection {
    /// Looks at the bound again: a connection that was let in beyond it takes nobody's place after all.
    ///
    /// # Errors
    /// `RATE_LIMITED` when its user has more connections than it may have.
    pub(crate) fn check_bound(&self) -> Result<(), Failure> {
        let of_user = self.users.lock().get(&self.key).map(|one| one.connections);
        if of_user.is_some_and(|count| count > self.users.0.max_connections.max(1)) {
            return Err(self.users.refuse_connection());
        }
        Ok(())
    }

    /// Waits for its turn to open: a few of one user do at once.
    ///
    /// # Errors
    /// `OVERLOADED` when the others take too long.
    pub(crate) async fn open(&self) -> Result<OpeningPermit, Failure> {
        let opening = Arc::clone(&self.openings).acquire_owned();
        match tokio::time::timeout(OPENING_TIMEOUT, opening).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let busy = "too many connections of this user open at once";
                Err(Failure::new(Code::Overloaded, busy).retry_after(RETRY_DELAY_MS))
            }
        }
    }
}

impl Drop for UserConnection {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(of_user) = users.get_mut(&self.key) {
            of_user.connections -= 1;
            if of_user.connections == 0 {
                users.remove(&self.key);
            }
        }
    }
}

fn key(caller: &Caller) -> UserKey {
    (caller.tenant.clone(), caller.user.clone())
}

#[cfg(test)]
mod tests {
    use confab_auth::Scope as TokenScope;
    use prometheus_client::registry::Registry;
    use time::OffsetDateTime;

    use super::*;

    fn caller(user: &str) -> Caller {
        Caller {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
            device: "phone".to_owned(),
            login_session: "1".to_owned(),
            issued_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::UNIX_EPOCH,
            scope: TokenScope::parse(""),
        }
    }

    fn users(max_connections: usize) -> Users {
        Users::new(max_connections, LimitMetrics::new(&mut Registry::default()))
    }

    #[test]
    fn user_has_no_more_connections_than_it_may() {
        let users = users(2);
        let (ann, bob) = (caller("ann"), caller("bob"));
        let mut held: Vec<_> = (0..2)
            .map(|_| users.connect(&ann, false).unwrap())
            .collect();
        let refused = users.connect(&ann, false).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after_ms.is_some());
        assert!(users.connect(&bob, false).is_ok());
        let taking_over = users.connect(&ann, true).unwrap();
        assert!(taking_over.check_bound().is_err());
        drop(held.pop());
        assert!(users.connect(&ann, false).is_err(), "two are left");
        assert!(taking_over.check_bound().is_ok());
        drop(held.pop());
        assert!(users.connect(&ann, false).is_ok());
    }

    #[test]
    fn users_without_connections_are_forgotten() {
        let users = users(2);
        for n in 0..100 {
            drop(users.connect(&caller(&n.to_string()), false).unwrap());
        }
        assert!(users.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn few_connections_of_one_user_open_at_once() {
        let users = users(100);
        let connect = |user| users.connect(&caller(user), false).unwrap();
        let (ann, bob) = (connect("ann"), connect("bob"));
        let mut opening = Vec::new();
        for _ in 0..MAX_OPENINGS {
            opening.push(ann.open().await.unwrap());
        }
        assert!(bob.open().await.is_ok());
        assert_eq!(ann.open().await.unwrap_err().code, Code::Overloaded);
        opening.pop();
        assert!(ann.open().await.is_ok());
    }

    #[test]
    fn resume_tokens_that_resume_nothing_are_bounded() {
        let users = users(100);
        let (ann, bob) = (caller("ann"), caller("bob"));
        assert!(users.resumes_well(&ann));
        let mut tried = 0;
        while users.may_resume(&ann).is_ok() {
            users.resume_failed(&ann);
            tried += 1;
        }
        let burst = FAILED_RESUMES.get();
        assert!((burst..burst + 20).contains(&tried), "{tried}");
        assert!(!users.resumes_well(&ann));
        assert!(users.resumes_well(&bob) && users.may_resume(&bob).is_ok());
    }
}
