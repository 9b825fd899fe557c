//! When who comes may come in. No IO; the time is a value.
//!
//! Whoever comes is given its turn at once, so that nobody is woken or looked at again before it. Tenants share the lines: the more of those
//! who wait are of one tenant, the sooner others of it are sent away, so that its storm leaves room for who comes of another.

use std::collections::VecDeque;
use std::time::Duration;

use confab_protocol::ids::TenantId;
use rustc_hash::FxHashMap;

use super::{Kind, Rates};

/// How long one who comes may wait where only its own tenant's wait; with the rate this also bounds how many do. Where others wait it may be
/// up to twice as long.
const MAX_CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Turns that nobody took are kept for so long: who comes a little unevenly does not wait.
const UNUSED_SLOT_LIFETIME: Duration = Duration::from_millis(100);
/// The longest time after which anyone is told to come again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What one who comes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectSlot {
    /// It comes in after this.
    In(Duration),
    /// It would wait too long; it may come again after this.
    Again(Duration),
}

/// The gate, with a line for each kind. Times are counted from the gate's beginning.
#[derive(Debug)]
pub(super) struct ConnectSchedule {
    resumes: ConnectQueue,
    fresh: ConnectQueue,
}

#[derive(Debug)]
struct ConnectQueue {
    /// Between one turn and the next.
    pace: Duration,
    /// The next turn that nobody has.
    next: Duration,
    /// Turns that are still to come, and how many are each tenant's.
    waiting: VecDeque<(Duration, TenantId)>,
    tenants: FxHashMap<TenantId, usize>,
    /// When the next one of a tenant may come again that is sent away.
    again: FxHashMap<TenantId, Duration>,
}

impl ConnectQueue {
    fn new(rate: u32) -> Self {
        Self {
            pace: Duration::from_secs(1) / rate.max(1),
            next: Duration::ZERO,
            waiting: VecDeque::new(),
            tenants: FxHashMap::default(),
            again: FxHashMap::default(),
        }
    }

    /// Forgets the turns that have come.
    fn forget(&mut self, now: Duration) {
        while let Some((_, tenant)) = self.waiting.pop_front_if(|(turn, _)| *turn <= now) {
            if let Some(count) = self.tenants.get_mut(&tenant) {
                *count -= 1;
                if *count == 0 {
                    self.tenants.remove(&tenant);
                }
            }
        }
        if self.waiting.is_empty() {
            self.again.retain(|_, again| *again > now);
        }
    }

    /// Whether nobody of another tenant waits.
    fn is_only_of(&self, tenant: &TenantId) -> bool {
        self.tenants.len() == usize::from(self.tenants.contains_key(tenant))
    }

    /// For how long a tenant's own take turns here.
    fn of_tenant(&self, tenant: &TenantId) -> Duration {
        let count = self.tenants.get(tenant).copied().unwrap_or_default();
        self.pace
            .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The next turn, which may lie behind by the leeway.
    fn turn(&self, now: Duration) -> Duration {
        self.next.max(now.saturating_sub(UNUSED_SLOT_LIFETIME))
    }

    /// Gives away a turn.
    fn take(&mut self, tenant: &TenantId, turn: Duration, now: Duration) -> ConnectSlot {
        self.next = turn + self.pace;
        if turn > now {
            self.waiting.push_back((turn, tenant.clone()));
            *self.tenants.entry(tenant.clone()).or_default() += 1;
        }
        ConnectSlot::In(turn.saturating_sub(now))
    }

    /// Sends one away so that those of its tenant who were sent away come back at the line's pace, behind those who wait.
    fn send_away(
        &mut self,
        tenant: &TenantId,
        turn: Duration,
        now: Duration,
        chance: f64,
    ) -> ConnectSlot {
        let before = self.again.get(tenant).copied().unwrap_or_default();
        let again = before.max(turn);
        let wait = again - now;
        if wait <= MAX_RETRY_AFTER {
            self.again.insert(tenant.clone(), again + self.pace);
        }
        ConnectSlot::Again(wait.min(MAX_RETRY_AFTER).mul_f64(0.75 + chance / 2.0))
    }
}

impl ConnectSchedule {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            resumes: ConnectQueue::new(rates.resumes),
            fresh: ConnectQueue::new(rates.fresh),
        }
    }

    /// One of a tenant comes at `now`; `chance` is in 0..1 and spreads those who are sent away.
    pub(super) fn arrive(
        &mut self,
        kind: Kind,
        tenant: &TenantId,
        now: Duration,
        chance: f64,
    ) -> ConnectSlot {
        self.resumes.forget(now);
        self.fresh.forget(now);
        let resuming = self.resumes.of_tenant(tenant);
        let is_alone = self.resumes.is_only_of(tenant);
        let (line, turn, own, is_alone) = match kind {
            Kind::Resume => {
                let turn = self.resumes.turn(now);
                (&mut self.resumes, turn, resuming, is_alone)
            }
            // Behind all who wait to resume.
            Kind::Fresh => {
                let resumes = self.resumes.next;
                let behind = if resumes > now {
                    resumes
                } else {
                    Duration::ZERO
                };
                let turn = self.fresh.turn(now).max(behind);
                let own = self.fresh.of_tenant(tenant).max(resuming);
                let is_alone = is_alone && self.fresh.is_only_of(tenant);
                (&mut self.fresh, turn, own, is_alone)
            }
        };
        let wait = turn.saturating_sub(now);
        let own = if is_alone { wait } else { own };
        if wait + own > 2 * MAX_CONNECT_WAIT {
            line.send_away(tenant, turn, now, chance)
        } else {
            line.take(tenant, turn, now)
        }
    }
}

#[cfg(test)]
mod tests;
