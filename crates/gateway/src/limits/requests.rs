//! What the HTTP requests of one user may take of this gateway at once: a number of requests, and bytes of bodies. Bounds, not rates: they
//! hold whatever the rate limits are set to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::LimitMetrics;

/// The unit in which bodies are counted, in bytes: each takes one at least.
const BODY_UNIT: usize = 1024;
/// Bodies of one user's requests, in these units: 64 MiB. Further ones are read when others were answered.
const MAX_BODY_UNITS: usize = 64 * 1024;
/// When one that was refused may come again, in milliseconds.
const RETRY_DELAY_MS: u64 = 1000;

/// The requests of all users. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct UserRequests(Arc<RequestTable>);

#[derive(Debug)]
struct RequestTable {
    max_requests: usize,
    users: Mutex<FxHashMap<Owner, UserShare>>,
    metrics: LimitMetrics,
}

#[derive(Debug)]
struct UserShare {
    requests: usize,
    bodies: Arc<Semaphore>,
}

/// A request's place among its user's, until it is dropped.
#[derive(Debug)]
struct UserRequest {
    requests: UserRequests,
    owner: Owner,
    bodies: Arc<Semaphore>,
}

/// What a request holds of its user's share, from when its caller is known until its answer is gone. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestShare(Arc<Mutex<HeldShare>>);

#[derive(Debug, Default)]
struct HeldShare {
    request: Option<UserRequest>,
    body: Option<OwnedSemaphorePermit>,
}

impl UserRequests {
    /// Bounds with so many requests of a user at once.
    pub(crate) fn new(max_requests: usize, metrics: LimitMetrics) -> Self {
        Self(Arc::new(RequestTable {
            max_requests: max_requests.max(1),
            users: Mutex::default(),
            metrics,
        }))
    }

    /// Takes a place for a request of `owner`, held by `share`.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the user has as many as it may have.
    pub(crate) fn begin(&self, owner: Owner, share: &RequestShare) -> Result<(), Failure> {
        let mut users = self.lock();
        let of_user = users.entry(owner.clone()).or_insert_with(|| UserShare {
            requests: 0,
            bodies: Arc::new(Semaphore::new(MAX_BODY_UNITS)),
        });
        if of_user.requests >= self.0.max_requests {
            drop(users);
            return Err(self.refuse());
        }
        of_user.requests += 1;
        let bodies = Arc::clone(&of_user.bodies);
        drop(users);
        share.lock().request = Some(UserRequest {
            requests: self.clone(),
            owner,
            bodies,
        });
        Ok(())
    }

    fn refuse(&self) -> Failure {
        self.0.metrics.refused("requests");
        let full = "this user has as many requests on their way at this gateway as it may have";
        Failure::new(Code::RateLimited, full).retry_after(RETRY_DELAY_MS)
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Owner, UserShare>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestShare {
    /// Waits for room for a body of so many bytes; a request without a caller needs none.
    ///
    /// # Errors
    /// `RATE_LIMITED` when others of the user's hold it for as long as `patience`.
    pub(crate) async fn room(&self, bytes: usize, patience: Duration) -> Result<(), Failure> {
        let of_user = {
            let held = self.lock();
            let request = held.request.as_ref();
            request.map(|one| (one.requests.clone(), Arc::clone(&one.bodies)))
        };
        let Some((requests, bodies)) = of_user else {
            return Ok(());
        };
        let units = bytes.div_ceil(BODY_UNIT).clamp(1, MAX_BODY_UNITS);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match timeout(patience, bodies.acquire_many_owned(units)).await {
            Ok(Ok(room)) => {
                self.lock().body = Some(room);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(requests.refuse()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HeldShare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UserRequest {
    fn drop(&mut self) {
        let mut users = self.requests.lock();
        if let Some(of_user) = users.get_mut(&self.owner) {
            of_user.requests -= 1;
            if of_user.requests == 0 {
                users.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn requests(max: usize) -> UserRequests {
        UserRequests::new(max, LimitMetrics::new(&mut Registry::default()))
    }

    fn owner(user: &str) -> Owner {
        Owner {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        }
    }

    fn begun(requests: &UserRequests, user: &str) -> Result<RequestShare, Failure> {
        let share = RequestShare::default();
        requests.begin(owner(user), &share).map(|()| share)
    }

    #[test]
    fn user_has_no_more_requests_than_it_may() {
        let requests = requests(2);
        let mut held: Vec<_> = (0..2).map(|_| begun(&requests, "ann").unwrap()).collect();
        let refused = begun(&requests, "ann").unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after_ms.is_some());
        assert!(begun(&requests, "bob").is_ok());
        // Whoever has a clone holds it: the answer's body.
        let clone = held[0].clone();
        held.clear();
        assert!(begun(&requests, "ann").is_ok(), "one place is free");
        drop(clone);
        assert!(requests.lock().is_empty(), "nothing is kept of users");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_beyond_users_share_wait_for_answers() {
        let requests = requests(100);
        let second = Duration::from_secs(1);
        let half = MAX_BODY_UNITS * BODY_UNIT / 2;
        let mut large = Vec::new();
        for _ in 0..2 {
            let share = begun(&requests, "ann").unwrap();
            share.room(half, second).await.unwrap();
            large.push(share);
        }
        let small = begun(&requests, "ann").unwrap();
        let refused = small.room(1, second).await.unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        let other = begun(&requests, "bob").unwrap();
        other.room(half, second).await.unwrap();
        let (waited, ()) = tokio::join!(small.room(1, second), async {
            tokio::time::sleep(second / 2).await;
            large.pop();
        });
        waited.unwrap();
    }

    #[tokio::test]
    async fn request_without_caller_has_room() {
        let share = RequestShare::default();
        share.room(usize::MAX, Duration::ZERO).await.unwrap();
    }
}
