//! Queries of one kind that wait for a slot: served in turn by tenant, then by user, and never all slots for one of them.
//!
//! A tenant alone leaves one slot free, so that another one's query begins at once; while another waits it has half of them. A user has
//! the same of its tenant's. Pure: no IO, and the time is a value.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::fair::{Counts, FairQueue, Owner};
use confab_protocol::ids::{TenantId, UserId};
use confab_protocol::query::{QueryKind, QueryShare};

/// Queries that wait, of all tenants.
const MAX_WAITING: usize = 4096;
/// Queries of one tenant that wait.
const MAX_WAITING_OF_TENANT: usize = MAX_WAITING / 2;
/// Queries of one user that wait.
const MAX_WAITING_OF_USER: usize = MAX_WAITING_OF_TENANT / 4;

/// Queries that wait and that run.
#[derive(Debug)]
pub(crate) struct QueryQueue<T> {
    kind: QueryKind,
    slots: usize,
    /// Those of no tenant, which are few and come first.
    shared: VecDeque<Waiting<T>>,
    owned: FairQueue<Waiting<T>>,
    waiting: Counts,
    running: Counts,
    running_shared: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    deadline: Instant,
    job: T,
}

/// A slot that is to be given back by [`QueryQueue::finish`].
#[derive(Debug)]
pub(crate) struct Slot(Option<Owner>);

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// Answer it, within this time.
    Run(Slot, T, Duration),
    /// Nobody waits for it any more.
    Expired(T),
}

impl<T> QueryQueue<T> {
    pub(crate) fn new(kind: QueryKind, slots: usize) -> Self {
        Self {
            kind,
            slots,
            shared: VecDeque::new(),
            owned: FairQueue::default(),
            waiting: Counts::default(),
            running: Counts::default(),
            running_shared: 0,
        }
    }

    /// Takes a query in.
    ///
    /// # Errors
    /// Gives it back where too many wait: of its user, of its tenant, or of all.
    pub(crate) fn push(
        &mut self,
        share: Option<QueryShare>,
        deadline: Instant,
        job: T,
    ) -> Result<(), T> {
        let waiting = Waiting { deadline, job };
        let Some(owner) = share.and_then(owner) else {
            if self.shared.len() >= MAX_WAITING {
                return Err(waiting.job);
            }
            self.shared.push_back(waiting);
            return Ok(());
        };
        let (of_tenant, of_user) = self.waiting.of(&owner.tenant, &owner.user);
        if self.waiting.all() >= MAX_WAITING
            || of_tenant >= MAX_WAITING_OF_TENANT
            || of_user >= MAX_WAITING_OF_USER
        {
            return Err(waiting.job);
        }
        self.waiting.add(&owner);
        self.owned.push(&owner, waiting);
        Ok(())
    }

    /// The next query that has a slot, or that expired while it waited.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next<T>> {
        if self.running() >= self.slots {
            return None;
        }
        let (owner, Waiting { deadline, job }) = match self.shared.pop_front() {
            Some(waiting) => (None, waiting),
            None => self.pop_owned()?,
        };
        let Some(left) = deadline
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
        else {
            return Some(Next::Expired(job));
        };
        match &owner {
            Some(owner) => self.running.add(owner),
            None => self.running_shared += 1,
        }
        Some(Next::Run(Slot(owner), job, left))
    }

    /// Gives a slot back after so long: whoever used much has its next turn later.
    pub(crate) fn finish(&mut self, slot: Slot, took: Duration) {
        let Slot(owner) = slot;
        let Some(owner) = owner else {
            self.running_shared -= 1;
            return;
        };
        self.running.remove(&owner);
        let micros = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
        self.owned.charge(&owner, 1, micros);
    }

    /// Queries that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.all() + self.shared.len()
    }

    /// Queries that run.
    pub(crate) const fn running(&self) -> usize {
        self.running.all() + self.running_shared
    }

    fn pop_owned(&mut self) -> Option<(Option<Owner>, Waiting<T>)> {
        let (kind, slots) = (self.kind, self.slots);
        let (waiting, running) = (&self.waiting, &self.running);
        let of_tenant =
            |tenant: &TenantId| share_of(slots, waiting.of_tenant(tenant) < waiting.all());
        let allows_some_of = |tenant: &TenantId| running.of_tenant(tenant) < of_tenant(tenant);
        let allows = |tenant: &TenantId, user: &UserId| {
            let (tenant_waiting, user_waiting) = waiting.of(tenant, user);
            let (_, user_running) = running.of(tenant, user);
            let of_user = share_of(of_tenant(tenant), user_waiting < tenant_waiting);
            // Sessions are asked for by gateways, for all users of a tenant together.
            kind == QueryKind::Session || user_running < of_user
        };
        let (owner, item) = self.owned.pop_of(allows_some_of, allows)?;
        self.waiting.remove(&owner);
        Some((Some(owner), item))
    }
}

/// How many of so many slots one may have: all but one, or half of them where others wait.
fn share_of(slots: usize, do_others_wait: bool) -> usize {
    let share = if do_others_wait {
        slots / 2
    } else {
        slots.saturating_sub(1)
    };
    share.max(1)
}

/// Whose turn it counts in. What a gateway asks for a tenant counts for no user of it.
fn owner(share: QueryShare) -> Option<Owner> {
    let QueryShare { tenant, user } = share;
    match user {
        Some(user) => Some(Owner { tenant, user }),
        None => Owner::of_tenant(&tenant),
    }
}

#[cfg(test)]
mod tests;
