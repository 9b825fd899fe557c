//! What waits for each worker, and what goes in the next message to it. No IO.

use std::time::{Duration, Instant};

use confab_bus::rpc::Target;
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::{Counts, FairQueue, Owner, Slots};
use confab_protocol::limits;
use rustc_hash::FxHashMap;

use super::CommandLimits;
use super::shares::Shares;
use super::submission::{Class, Submission};

mod large;

use large::Large;
pub(super) use large::LargeParts;

/// Commands in one message at most.
const MAX_BATCH_COMMANDS: usize = 1000;

/// Commands that are neither sends nor read marks on their way to one worker at once: in all, of a tenant, and of a user. Each may take
/// long, and those of one conversation are carried out one by one: so no tenant or user may occupy all of them.
const MAX_OTHERS_ON_THE_WAY: usize = 64;
const MAX_OTHERS_OF_TENANT: usize = 48;
const MAX_OTHERS_OF_USER: usize = 16;

/// What is left of a budget must be more than this to be worth a message.
const MIN_BUDGET: Duration = Duration::from_millis(5);

/// What waits for one worker of one class, and what is on the way.
#[derive(Debug)]
struct WorkerQueue {
    waiting: FairQueue<Submission>,
    messages: usize,
    /// Of sends and read marks: whose commands the others would wait for.
    large: Large,
    /// Commands on the way that are neither sends nor read marks.
    others: Slots,
    /// Those of them beyond their user's share: what goes together goes whole, and counts in no other's way.
    beyond: Counts,
}

/// A queue a target and class, each with bounds of its own for what is on the way: so nothing waits for commands of another class.
/// What waits is served in turn by tenant, then by user.
#[derive(Debug)]
pub(super) struct WorkerQueues {
    queues: FxHashMap<(Target, Class), WorkerQueue>,
    in_flight: usize,
    shares: Shares,
}

/// A message that may go: whole submissions of one class, as many as fit.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) target: Target,
    pub(super) class: Class,
    pub(super) submissions: Vec<Submission>,
    pub(super) large: LargeParts,
}

impl Default for WorkerQueue {
    fn default() -> Self {
        Self {
            waiting: FairQueue::default(),
            messages: 0,
            large: Large::default(),
            others: Slots::new(
                MAX_OTHERS_ON_THE_WAY,
                MAX_OTHERS_OF_TENANT,
                MAX_OTHERS_OF_USER,
            ),
            beyond: Counts::default(),
        }
    }
}

impl WorkerQueue {
    /// How many commands the next message may have.
    const fn room(&self, class: Class, in_flight: usize) -> usize {
        match class {
            Class::Sends | Class::Marks if self.messages < in_flight => MAX_BATCH_COMMANDS,
            Class::Sends | Class::Marks => 0,
            Class::Others => self.others.free(),
        }
    }

    /// Whether something that waits may go.
    fn has_next(&self, class: Class, in_flight: usize) -> bool {
        if self.waiting.is_empty() || self.room(class, in_flight) == 0 {
            return false;
        }
        match class {
            Class::Others => self.waiting.has_for(&self.others),
            Class::Sends | Class::Marks if self.large.is_empty() => true,
            Class::Sends | Class::Marks => {
                let large = &self.large;
                self.waiting.has_of(
                    |tenant| large.allows_some_of(tenant, in_flight),
                    |tenant, user| large.allows(tenant, user, in_flight),
                )
            }
        }
    }

    fn pop(&mut self, class: Class, in_flight: usize) -> Option<(Owner, Submission)> {
        match class {
            Class::Others => self.waiting.pop_for(&self.others),
            Class::Sends | Class::Marks if self.large.is_empty() => self.waiting.pop(),
            Class::Sends | Class::Marks => {
                let large = &self.large;
                self.waiting.pop_of(
                    |tenant| large.allows_some_of(tenant, in_flight),
                    |tenant, user| large.allows(tenant, user, in_flight),
                )
            }
        }
    }

    fn take_other(&mut self, owner: &Owner) {
        if self.others.held(owner) < MAX_OTHERS_OF_USER {
            self.others.take(owner);
        } else {
            self.beyond.add(owner);
        }
    }

    fn give_back_other(&mut self, owner: &Owner) {
        let (_, beyond) = self.beyond.of(&owner.tenant, &owner.user);
        if beyond > 0 {
            self.beyond.remove(owner);
        } else {
            self.others.give_back(owner);
        }
    }

    const fn is_idle(&self) -> bool {
        self.messages == 0 && self.waiting.is_empty()
    }
}

impl WorkerQueues {
    pub(super) fn new(limits: &CommandLimits) -> Self {
        Self {
            queues: FxHashMap::default(),
            in_flight: limits.in_flight,
            shares: Shares::new(limits.waiting, limits.waiting_bytes),
        }
    }

    /// Whether more of an owner's may wait.
    pub(super) fn admits(&self, owner: &Owner) -> bool {
        self.shares.admits(owner)
    }

    /// Commands that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.shares.commands()
    }

    pub(super) fn push(&mut self, target: Target, submission: Submission) {
        let owner = submission.owner().clone();
        self.shares
            .add(&owner, submission.count(), submission.weight);
        let queue = self.queues.entry((target, submission.class())).or_default();
        queue.waiting.push(&owner, submission);
    }

    /// The next message that may go. What waited too long is refused instead.
    pub(super) fn next(&mut self, now: Instant) -> Option<Message> {
        loop {
            let in_flight = self.in_flight;
            let mut queues = self.queues.iter();
            let (target, class) = queues
                .find(|((_, class), queue)| queue.has_next(*class, in_flight))
                .map(|(key, _)| *key)?;
            let submissions = self.take((target, class), now);
            if submissions.is_empty() {
                continue;
            }
            let large = match class {
                Class::Sends | Class::Marks => LargeParts::of(&submissions),
                Class::Others => LargeParts::default(),
            };
            if let Some(queue) = self.queues.get_mut(&(target, class)) {
                queue.large.begin(&large);
            }
            return Some(Message {
                target,
                class,
                submissions,
                large,
            });
        }
    }

    fn take(&mut self, key: (Target, Class), now: Instant) -> Vec<Submission> {
        let (mut taken, mut commands, mut bytes, mut attempts) = (Vec::new(), 0, 0, 0);
        let Some(queue) = self.queues.get_mut(&key) else {
            return taken;
        };
        let room = queue.room(key.1, self.in_flight);
        while let Some((owner, submission)) = queue.pop(key.1, self.in_flight) {
            let count = submission.count();
            let fits = commands == 0
                || (commands + count <= room
                    && bytes + submission.weight <= limits::MAX_RPC_BYTES
                    && submission.attempts == attempts);
            if !fits {
                queue.waiting.push_front(&owner, submission);
                break;
            }
            self.shares.remove(&owner, count, submission.weight);
            if submission.deadline <= now + MIN_BUDGET {
                let code = if submission.handed_over {
                    Code::Timeout
                } else {
                    Code::Overloaded
                };
                submission.refuse(&Failure::of(code).retry_after(1000));
                continue;
            }
            queue.waiting.charge(&owner, count, submission.weight);
            if key.1 == Class::Others {
                for _ in 0..count {
                    queue.take_other(&owner);
                }
            }
            commands += count;
            bytes += submission.weight;
            attempts = submission.attempts;
            taken.push(submission);
        }
        queue.messages += usize::from(!taken.is_empty());
        if queue.is_idle() {
            self.queues.remove(&key);
        }
        taken
    }

    /// Takes out what waits for a target, to go elsewhere.
    pub(super) fn abandon(&mut self, target: Target) -> Vec<Submission> {
        let mut abandoned = Vec::new();
        for class in Class::ALL_CLASSES {
            let queue = self.queues.get_mut(&(target, class));
            for (owner, submission) in queue.map_or_else(Vec::new, |queue| queue.waiting.drain()) {
                self.shares
                    .remove(&owner, submission.count(), submission.weight);
                abandoned.push(submission);
            }
        }
        abandoned
    }

    /// Commands of a message are no longer on the way, each of one of these owners where they are counted by owner.
    pub(super) fn finished(&mut self, target: Target, class: Class, owners: &[Owner]) {
        if let Some(queue) = self.queues.get_mut(&(target, class)) {
            for owner in owners {
                queue.give_back_other(owner);
            }
        }
    }

    /// No command of a message is on the way any more.
    pub(super) fn ended(&mut self, target: Target, class: Class, large: &LargeParts) {
        if let Some(queue) = self.queues.get_mut(&(target, class)) {
            queue.messages = queue.messages.saturating_sub(1);
            queue.large.end(large);
            if queue.is_idle() {
                self.queues.remove(&(target, class));
            }
        }
    }
}

#[cfg(test)]
mod tests;
