//! Which commands are carried out next, and which of them together. Pure: it does no IO and takes the time.
//!
//! Commands wait by tenant, user and conversation. Sends are taken in batches, in turn by tenant and user, each conversation in one
//! batch at a time. Any other command runs alone, keeps its place among its user's commands of the conversation, and has slots of its own.
//!
//! Nobody waits for a lock in a batch or a slot: what is locked comes back, and its log waits apart. Locked twice, or for 20 ms, it is
//! carried out in one of few places that wait for the lock. What waits apart counts in no other's way.

use std::time::{Duration, Instant};

use confab_protocol::fair::{Owner, Slots};
use rustc_hash::FxHashSet;

mod batch;
mod bounds;
mod item;
mod pace;
mod parts;
mod queues;

use batch::{RunEnd, Taken};
pub(crate) use bounds::Bounds;
pub(crate) use item::{Caps, Done, Item, Kind, Locking, Open, Refused, Ticket, Work};
use item::{log_in, log_of};
pub(crate) use pace::Pace;
use parts::Parts;
pub(crate) use queues::Amount;
use queues::{LogKey, Queues};

/// Bytes of one queue's sends that go into a batch before the next queue has its turn.
const TURN_BYTES: usize = 16 * 1024;
/// Sends of one queue that do.
const TURN_EVENTS: usize = 32;
/// From when on others need not wait behind a batch that is not full: its server may be silent.
const MAX_BATCH_WAIT: Duration = Duration::from_millis(250);
/// Commands of one user, and their bytes, that may wait for a locked conversation.
const MAX_POSTPONED: Amount = Amount {
    events: 256,
    bytes: 4 << 20,
};

/// Who waits, who runs.
#[derive(Debug)]
pub(crate) struct Planner<J> {
    caps: Caps,
    queues: Queues<J>,
    sends: Bounds,
    singles: Bounds,
    /// What waits apart.
    apart: Bounds,
    slots: Slots,
    places: Slots,
    parts: Parts,
    /// When each batch that runs began, the oldest first.
    batches: Vec<Instant>,
    /// Found while a batch was taken, and told next.
    expired: Vec<Item<J>>,
    /// Counts commands without a conversation.
    own: u64,
}

impl<J> Planner<J> {
    pub(crate) fn new(caps: Caps) -> Self {
        let most = Amount {
            events: caps.queue_events,
            bytes: caps.queue_bytes,
        };
        Self {
            caps,
            queues: Queues::default(),
            sends: Bounds::new(most, Pace::of_sends()),
            singles: Bounds::new(most, Pace::of_singles()),
            apart: Bounds::apart(most),
            slots: Slots::new(caps.slots, caps.slots * 3 / 4, caps.slots / 2),
            places: Slots::new(caps.places, caps.places / 2, caps.places / 4),
            parts: Parts::default(),
            batches: Vec::new(),
            expired: Vec::new(),
            own: 0,
        }
    }

    /// Commands that wait, but for those apart.
    pub(crate) const fn waiting(&self) -> usize {
        self.sends.all().events + self.singles.all().events
    }

    /// Commands that wait apart, for a lock.
    pub(crate) const fn postponed(&self) -> usize {
        self.apart.all().events
    }

    /// Whether nothing waits and nothing runs.
    #[cfg(test)]
    pub(crate) const fn is_idle(&self) -> bool {
        let waiting = self.waiting() + self.postponed() + self.expired.len();
        waiting + self.batches.len() + self.slots.used() + self.places.used() == 0
    }

    /// Whether the command finds room and can be served within its budget.
    ///
    /// # Errors
    /// After how long trying again makes sense.
    pub(crate) fn admit(&self, item: &Item<J>, budget: Duration) -> Result<(), Duration> {
        let amount = item.amount();
        let Some(log) = log_of(item).filter(|log| self.queues.is_apart(*log)) else {
            return self.bounds(&item.kind).admit(&item.owner, amount, budget);
        };
        let own = self.queues.of_owner(log, &item.owner);
        if own.events > 0
            && (own.events >= MAX_POSTPONED.events
                || own.bytes + amount.bytes > MAX_POSTPONED.bytes)
        {
            return Err(Duration::from_secs(1));
        }
        self.apart.admit(&item.owner, amount, Duration::MAX)
    }

    /// Takes a command in.
    pub(crate) fn push(&mut self, item: Item<J>) {
        let log = log_of(&item).unwrap_or_else(|| {
            self.own = self.own.wrapping_add(1);
            LogKey::Own(self.own)
        });
        self.bounds_in(log, &item.kind)
            .add(&item.owner, item.amount());
        self.queues.push_back(log, item);
    }

    /// When something that waits apart is to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let is_idle = self.batches.is_empty() || self.queues.ready().events == 0;
        let lane = self.batches.first().filter(|_| !is_idle && self.has_lane());
        let lane = lane.map(|began| *began + MAX_BATCH_WAIT);
        self.queues.next_retry().into_iter().chain(lane).min()
    }

    /// What is to be carried out now, if anything. To be called until there is nothing.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Work<J>> {
        while let Some(due) = self.queues.next_due(now) {
            if due.is_contended
                && let Some(work) = self.take_place(due.key, now)
            {
                return Some(work);
            }
            // It has its turn among the others again.
            self.rejoin(due.key);
            self.queues.free(due.key);
        }
        if self.slots.free() > 0
            && let Some(work) = self.take_single(now)
        {
            return Some(work);
        }
        let lane = self.batches.is_empty()
            || (self.has_lane() && (self.is_batch_full() || self.is_batch_slow(now)));
        if lane && let Some(work) = self.take_batch(now) {
            return Some(work);
        }
        let expired = std::mem::take(&mut self.expired);
        (!expired.is_empty()).then_some(Work::Expired(expired))
    }

    /// What was carried out no longer keeps its conversations; what was left out waits apart.
    pub(crate) fn finish(&mut self, done: Done<J>, now: Instant) {
        let Done {
            ticket,
            took,
            mut skipped,
            refused,
        } = done;
        self.end(&ticket, took);
        for Refused {
            owner,
            conversation,
            failure,
        } in refused
        {
            let log = log_in(&owner, conversation);
            while let Some(mut item) = self.pop_if(log, &owner, |_| true) {
                item.open.skipped = Some(failure.clone());
                self.expired.push(item);
            }
        }
        for log in ticket.logs {
            let is_of_log = |item: &mut Item<J>| log_of(item).is_none_or(|of| of == log);
            let items: Vec<_> = skipped.extract_if(.., is_of_log).collect();
            let was_apart = self.queues.is_apart(log);
            if items.is_empty() {
                if was_apart {
                    self.rejoin(log);
                }
                self.queues.release(log);
                continue;
            }
            for item in &items {
                self.bounds_in(log, &item.kind)
                    .add(&item.owner, item.amount());
            }
            self.queues.postpone(log, items, now);
            if !was_apart {
                self.set_apart(log);
            }
        }
    }

    fn end(&mut self, ticket: &Ticket, took: Duration) {
        match (ticket.locking, ticket.is_batch) {
            (Locking::Wait, _) => self.places.give_back(&ticket.owner),
            (Locking::Skip, true) => {
                // Only batches large enough to say something.
                if ticket.events * 4 >= self.caps.batch_events {
                    let lanes = self.batches.len();
                    self.sends.pace.observe(ticket.events, took, lanes);
                }
                let running = self.batches.iter().position(|began| *began == ticket.began);
                if let Some(running) = running {
                    self.batches.remove(running);
                }
            }
            (Locking::Skip, false) => {
                self.singles.pace.observe(1, took, self.slots.used());
                self.slots.give_back(&ticket.owner);
            }
        }
    }

    const fn bounds(&self, kind: &Kind) -> &Bounds {
        match kind {
            Kind::Send(..) => &self.sends,
            Kind::Alone => &self.singles,
        }
    }

    /// Where a command counts that waits in this log.
    fn bounds_in(&mut self, log: LogKey, kind: &Kind) -> &mut Bounds {
        match kind {
            _ if self.queues.is_apart(log) => &mut self.apart,
            Kind::Send(..) => &mut self.sends,
            Kind::Alone => &mut self.singles,
        }
    }

    /// What waits in a log counts among what waits apart.
    fn set_apart(&mut self, log: LogKey) {
        for item in self.queues.items(log) {
            let bounds = match item.kind {
                Kind::Send(..) => &mut self.sends,
                Kind::Alone => &mut self.singles,
            };
            bounds.sub(&item.owner, item.amount());
            self.apart.add(&item.owner, item.amount());
        }
    }

    /// What waits in a log counts again among the others.
    fn rejoin(&mut self, log: LogKey) {
        for item in self.queues.items(log) {
            let bounds = match item.kind {
                Kind::Send(..) => &mut self.sends,
                Kind::Alone => &mut self.singles,
            };
            bounds.add(&item.owner, item.amount());
            self.apart.sub(&item.owner, item.amount());
        }
    }

    const fn has_lane(&self) -> bool {
        self.batches.len() < self.caps.lanes
    }

    /// Whether a batch runs for so long that others should not wait behind it.
    fn is_batch_slow(&self, now: Instant) -> bool {
        let first = self.batches.first();
        first.is_some_and(|began| now.duration_since(*began) >= MAX_BATCH_WAIT)
    }

    /// Whether what is ready fills a batch.
    const fn is_batch_full(&self) -> bool {
        let ready = self.queues.ready();
        ready.events >= self.caps.batch_events || ready.bytes >= self.caps.batch_bytes
    }

    /// Takes what a log that was locked begins with, to wait for the lock; nothing where there is no place for one of its users.
    fn take_place(&mut self, key: LogKey, now: Instant) -> Option<Work<J>> {
        let owners = self.queues.owners(key);
        let has_place = |owner: &&Owner| self.places.allows(&owner.tenant, &owner.user);
        let owner = owners.iter().find(has_place)?.clone();
        let ticket = |events, is_batch| Ticket {
            locking: Locking::Wait,
            is_batch,
            logs: vec![key],
            events,
            began: now,
            owner: owner.clone(),
        };
        let alone = self.pop_if(key, &owner, |item| item.kind == Kind::Alone);
        if let Some(item) = alone {
            if item.deadline <= now {
                self.expired.push(item);
                return None;
            }
            self.queues.hold_waiting(key);
            self.places.take(&owner);
            return Some(Work::Alone(ticket(1, false), item));
        }
        let mut taken = Taken::default();
        for owner in &owners {
            self.take_run(key, owner, &mut taken, usize::MAX, now);
        }
        if taken.items.is_empty() {
            return None;
        }
        self.queues.hold_waiting(key);
        self.places.take(&owner);
        Some(Work::Batch(ticket(taken.items.len(), true), taken.items))
    }

    fn take_single(&mut self, now: Instant) -> Option<Work<J>> {
        loop {
            let (key, owner) = self.queues.next_single(&self.slots)?;
            let Some(item) = self.pop_if(key, &owner, |_| true) else {
                continue;
            };
            self.queues.charge(&owner, item.amount(), false);
            if item.deadline <= now {
                self.expired.push(item);
                self.queues.put_back(key, &owner);
                continue;
            }
            self.queues.hold_alone(key, &owner);
            self.slots.take(&owner);
            let ticket = Ticket {
                locking: Locking::Skip,
                is_batch: false,
                logs: vec![key],
                events: 1,
                began: now,
                owner,
            };
            return Some(Work::Alone(ticket, item));
        }
    }

    fn take_batch(&mut self, now: Instant) -> Option<Work<J>> {
        let mut taken = Taken::default();
        let (mut logs, mut probed) = (FxHashSet::default(), Vec::new());
        let mut parts = self.parts.of_batch(self.caps, now);
        while !taken.is_full(self.caps)
            && let Some((key, owner)) = self.queues.next_sends(&parts, |key| logs.contains(&key))
        {
            let before = taken.amount();
            // One command shows whether the lock is free again.
            let is_probe = self.queues.is_suspect(key);
            let turn = if is_probe { 1 } else { TURN_EVENTS };
            let turn = turn.min(parts.left(&owner));
            let end = self.take_run(key, &owner, &mut taken, turn, now);
            let run = Amount {
                events: taken.items.len() - before.events,
                bytes: taken.bytes - before.bytes,
            };
            if run.events > 0 {
                for _ in 0..run.events {
                    parts.take(&owner);
                }
                if let Some(first) = taken.items.first() {
                    self.parts.note(&first.owner, &owner, now);
                }
                self.queues.charge(&owner, run, true);
                self.queues.hold(key);
                if is_probe {
                    probed.push(key);
                    continue;
                }
                logs.insert(key);
            }
            // A busy log gives its queues their turns when it is released; one whose key is in the batch already must wait for that.
            if end == RunEnd::Turn || !logs.contains(&key) {
                self.queues.put_back(key, &owner);
            }
        }
        let owner = taken.items.first()?.owner.clone();
        self.batches.push(now);
        let ticket = Ticket {
            locking: Locking::Skip,
            is_batch: true,
            logs: logs.into_iter().chain(probed).collect(),
            events: taken.items.len(),
            began: now,
            owner,
        };
        Some(Work::Batch(ticket, taken.items))
    }

    /// Takes the sends at a queue's front, up to the caps, to another command, or to a key that is in the batch already.
    fn take_run(
        &mut self,
        key: LogKey,
        owner: &Owner,
        taken: &mut Taken<J>,
        turn: usize,
        now: Instant,
    ) -> RunEnd {
        let before = taken.amount();
        loop {
            let (events, bytes) = (
                taken.items.len() - before.events,
                taken.bytes - before.bytes,
            );
            if taken.is_full(self.caps)
                || events >= turn
                || (turn < usize::MAX && bytes >= TURN_BYTES)
            {
                return RunEnd::Turn;
            }
            let caps = self.caps;
            let Some(item) = self.pop_if(key, owner, |item| taken.takes(key, item, caps, now))
            else {
                return if taken.is_closed {
                    RunEnd::Turn
                } else {
                    RunEnd::Blocked
                };
            };
            if item.deadline <= now {
                self.expired.push(item);
            } else {
                taken.bytes += item.bytes;
                taken.items.push(item);
            }
        }
    }

    /// Takes a command out of what waits.
    fn pop_if(
        &mut self,
        key: LogKey,
        owner: &Owner,
        wants: impl FnOnce(&Item<J>) -> bool,
    ) -> Option<Item<J>> {
        let item = self.queues.pop_if(key, owner, wants)?;
        self.bounds_in(key, &item.kind).sub(owner, item.amount());
        Some(item)
    }
}

#[cfg(test)]
mod tests;
