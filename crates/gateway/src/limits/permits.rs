//! Permits that tenants share, and the users of each tenant: who waits is served in turn, and nobody has so many that others find none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use confab_protocol::fair::{Counts, FairQueue, Owner};
use confab_protocol::ids::{TenantId, UserId};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

/// Permits. A tenant has three quarters of them, or half while others wait; a user the same of its tenant's.
#[derive(Debug)]
pub(crate) struct FairPermits {
    total: usize,
    state: Mutex<PermitState>,
}

#[derive(Debug, Default)]
struct PermitState {
    queue: FairQueue<oneshot::Sender<FairPermit>>,
    waiting: Counts,
    held: Counts,
}

/// A permit, until it is dropped.
#[derive(Debug)]
pub(crate) struct FairPermit {
    permits: Arc<FairPermits>,
    /// None once it is given back.
    owner: Option<Owner>,
    since: Instant,
}

impl FairPermits {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            state: Mutex::default(),
        })
    }

    /// Waits for a permit. Cancel-safe: who goes away meanwhile has none.
    ///
    /// # Errors
    /// Never while the permits are there.
    pub(crate) async fn acquire(self: &Arc<Self>, owner: &Owner) -> Result<FairPermit, RecvError> {
        let (sender, permit) = oneshot::channel();
        {
            let mut state = self.lock();
            state.waiting.add(owner);
            state.queue.push(owner, sender);
        }
        self.give_out();
        permit.await
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.all()
    }

    /// Gives what is free to those who wait.
    fn give_out(self: &Arc<Self>) {
        loop {
            let Some((owner, sender)) = self.lock().next(self.total) else {
                return;
            };
            let permit = FairPermit {
                permits: Arc::clone(self),
                owner: Some(owner),
                since: Instant::now(),
            };
            if let Err(mut unwanted) = sender.send(permit)
                && let Some(owner) = unwanted.owner.take()
            {
                self.lock().held.remove(&owner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PermitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PermitState {
    fn next(&mut self, total: usize) -> Option<(Owner, oneshot::Sender<FairPermit>)> {
        if self.held.all() >= total {
            return None;
        }
        let (waiting, held) = (&self.waiting, &self.held);
        let of_tenant =
            |tenant: &TenantId| share_of(total, waiting.of_tenant(tenant) < waiting.all());
        let allows_some_of = |tenant: &TenantId| held.of_tenant(tenant) < of_tenant(tenant);
        let allows = |tenant: &TenantId, user: &UserId| {
            let (tenant_waiting, user_waiting) = waiting.of(tenant, user);
            let (_, user_held) = held.of(tenant, user);
            user_held < share_of(of_tenant(tenant), user_waiting < tenant_waiting)
        };
        let (owner, sender) = self.queue.pop_of(allows_some_of, allows)?;
        self.waiting.remove(&owner);
        self.held.add(&owner);
        Some((owner, sender))
    }
}

/// How many of so many one may have.
const fn share_of(total: usize, do_others_wait: bool) -> usize {
    let share = if do_others_wait {
        total / 2
    } else {
        total - total / 4
    };
    if share == 0 { 1 } else { share }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let Some(owner) = self.owner.take() else {
            return;
        };
        let micros = usize::try_from(self.since.elapsed().as_micros()).unwrap_or(usize::MAX);
        {
            let mut state = self.permits.lock();
            state.held.remove(&owner);
            // Who used much has its next turn later.
            state.queue.charge(&owner, 1, micros);
        }
        self.permits.give_out();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn owner(tenant: &str, user: &str) -> Owner {
        Owner {
            tenant: tenant.parse().unwrap(),
            user: user.parse().unwrap(),
        }
    }

    /// The permits that an owner has at once.
    fn all(permits: &Arc<FairPermits>, owner: &Owner) -> Vec<FairPermit> {
        let at_once = || permits.acquire(owner).now_or_never()?.ok();
        std::iter::from_fn(at_once).collect()
    }

    #[test]
    fn nobody_takes_all_permits() {
        let permits = FairPermits::new(32);
        let ann = all(&permits, &owner("one", "ann"));
        assert_eq!(ann.len(), 18, "three quarters of its tenant's");
        let bob = all(&permits, &owner("one", "bob"));
        assert_eq!(bob.len(), 6, "what is left of the tenant's");
        let other = all(&permits, &owner("two", "ann"));
        assert_eq!(other.len(), 8, "what is left of all");
        drop((ann, bob, other));
        assert_eq!(permits.lock().held.all(), 0);
    }

    #[tokio::test]
    async fn user_waits_behind_nobody_elses_flood() {
        let permits = FairPermits::new(4);
        let (loud, quiet) = (owner("one", "loud"), owner("one", "quiet"));
        let mut held = all(&permits, &loud);
        let flood = (0..1000).map(|_| permits.acquire(&loud));
        let mut flood: Vec<_> = flood.map(Box::pin).collect();
        for waiting in &mut flood {
            assert!(waiting.now_or_never().is_none());
        }
        let mut waiting = std::pin::pin!(permits.acquire(&quiet));
        if waiting.as_mut().now_or_never().is_none() {
            held.pop();
            assert!(waiting.now_or_never().is_some(), "the next one is its own");
        }
    }

    #[test]
    fn who_went_away_has_no_permit() {
        let permits = FairPermits::new(2);
        let ann = owner("one", "ann");
        let held = all(&permits, &ann);
        // It was polled once, by which it waits, and is dropped.
        for _ in 0..100 {
            assert!(permits.acquire(&ann).now_or_never().is_none());
        }
        drop(held);
        assert_eq!((permits.waiting(), permits.lock().held.all()), (0, 0));
        assert!(permits.acquire(&ann).now_or_never().is_some());
    }
}
