//! A message on its way to a worker, and what has come back of it. No IO.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::rpc::{Liveness, Target, WorkerId};
use confab_protocol::command::{Part, Request};
use confab_protocol::fair::Owner;

use super::submission::{Class, MAX_ATTEMPTS, Submission};
use crate::workers::queues::{LargeParts, Message};

/// How often it is looked whether a worker lives that has said nothing of what it was sent, or only that it waits for locks.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(100);
/// Response timeout of a worker whose heartbeat is late while others' are on time.
const LATE_PATIENCE: Duration = Duration::from_millis(500);

/// A commit that begins at the end of the budget is decided within this, even on a starved processor. Only refusals after an abandoned
/// attempt wait for it.
const LAST_COMMIT: Duration = Duration::from_secs(1);

/// A message on its way to a worker.
#[derive(Debug)]
pub(super) struct Attempt {
    target: Target,
    class: Class,
    large: LargeParts,
    /// The message's submissions, but for those that were answered.
    submissions: Vec<Option<Submission>>,
    places: Vec<AttemptPlace>,
    /// Places of which nothing was told.
    unheard: usize,
    /// Who answers, as soon as it is known.
    worker: Option<WorkerId>,
    /// When the last part came; at first when the message was sent.
    heard: Instant,
    /// How long the worker may say nothing while places are unheard of.
    silence: Duration,
    /// Until when the worker may carry the commands out: it begins none behind its budget.
    open_until: Instant,
    deadline: Instant,
    /// Whether nobody else is tried behind it.
    is_last: bool,
}

/// What a part of an answer told.
#[derive(Debug)]
pub(super) struct PartOutcome {
    /// The submissions that are complete now.
    pub(super) complete: Vec<Submission>,
    /// Whose the commands are that something was told of for the first time, one by one; of sends and read marks, which are counted by
    /// message, none.
    pub(super) owners: Vec<Owner>,
}

/// A command's place in the message.
#[derive(Debug)]
struct AttemptPlace {
    submission: usize,
    index: usize,
    is_unheard: bool,
}

impl Attempt {
    /// A message that is sent now, with `silence` as the worker's budget. It fails when nothing is heard of it for as long, or at
    /// `deadline`.
    pub(super) fn new(
        message: Message,
        now: Instant,
        silence: Duration,
        deadline: Instant,
    ) -> Self {
        let Message {
            target,
            class,
            submissions,
            large,
        } = message;
        let mut places = Vec::new();
        for (n, submission) in submissions.iter().enumerate() {
            places.extend(submission.open().map(|(index, _)| AttemptPlace {
                submission: n,
                index,
                is_unheard: true,
            }));
        }
        let attempts = submissions.iter().map(|submission| submission.attempts);
        let is_last = attempts
            .max()
            .is_some_and(|attempts| attempts >= MAX_ATTEMPTS);
        Self {
            target,
            class,
            large,
            is_last,
            submissions: submissions.into_iter().map(Some).collect(),
            unheard: places.len(),
            places,
            worker: None,
            heard: now,
            silence,
            open_until: now + silence + LAST_COMMIT,
            deadline,
        }
    }

    /// What the message carries, by place.
    pub(super) fn requests(&self) -> Vec<Arc<Request>> {
        let submissions = self.submissions.iter().flatten();
        let requests = submissions.flat_map(|submission| submission.open());
        requests.map(|(_, request)| Arc::clone(request)).collect()
    }

    pub(super) const fn target(&self) -> Target {
        self.target
    }

    pub(super) const fn class(&self) -> Class {
        self.class
    }

    pub(super) const fn large(&self) -> &LargeParts {
        &self.large
    }

    /// The worker that has it, where that is known.
    pub(super) const fn worker(&self) -> Option<WorkerId> {
        match self.target {
            Target::Worker(worker) => Some(worker),
            Target::Any => self.worker,
        }
    }

    /// How many commands are neither answered nor known to wait for a lock. The message counts among those on the way while there are
    /// some.
    pub(super) const fn unheard(&self) -> usize {
        self.unheard
    }

    /// Takes a part of the answer in.
    pub(super) fn part(&mut self, now: Instant, part: Part) -> PartOutcome {
        self.heard = now;
        self.worker = Some(WorkerId(part.worker));
        let (mut touched, mut owners) = (Vec::new(), Vec::new());
        for (place, outcome) in part.outcomes {
            if let Some((submission, index)) = self.hear(place, &mut owners)
                && let Some(Some(kept)) = self.submissions.get_mut(submission)
            {
                kept.keep(index, outcome);
                touched.push(submission);
            }
        }
        for place in part.waiting {
            self.hear(place, &mut owners);
        }
        let complete = |n: usize| {
            let slot: &mut Option<Submission> = self.submissions.get_mut(n)?;
            slot.take_if(|submission| submission.count() == 0)
        };
        PartOutcome {
            complete: touched.into_iter().filter_map(complete).collect(),
            owners,
        }
    }

    /// Whose the commands are that nothing was told of, one by one; of sends and read marks none.
    pub(super) fn unheard_owners(&self) -> Vec<Owner> {
        let is_counted = self.class == Class::Others;
        let unheard = self.places.iter();
        let unheard = unheard.filter(|place| is_counted && place.is_unheard);
        let owners = unheard.filter_map(|place| self.owner(place.submission));
        owners.cloned().collect()
    }

    fn owner(&self, submission: usize) -> Option<&Owner> {
        let submission = self.submissions.get(submission)?.as_ref()?;
        Some(submission.owner())
    }

    /// Whether every command has its outcome.
    pub(super) fn is_complete(&self) -> bool {
        self.submissions.iter().all(Option::is_none)
    }

    /// Whether nothing more is expected: at the deadline, or from a silent worker. To be called with what is known of its worker.
    pub(super) fn is_over(&self, now: Instant, liveness: Option<Liveness>) -> bool {
        now >= self.deadline || self.is_silent(now, liveness)
    }

    /// Whether the worker has said nothing for too long. One whose commands only wait for locks is silent when it does not live.
    pub(super) fn is_silent(&self, now: Instant, liveness: Option<Liveness>) -> bool {
        if self.unheard == 0 {
            return liveness.is_none_or(|liveness| liveness == Liveness::Silent);
        }
        let patience = match liveness {
            // Where nobody else is tried, a worker that is only slow may still answer.
            Some(Liveness::Late) if !self.is_last => self.silence.min(LATE_PATIENCE),
            _ => self.silence,
        };
        now >= self.heard + patience
    }

    /// When [`Self::is_over`] is worth asking next.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let mut next = now + LIVENESS_INTERVAL;
        if self.unheard > 0 {
            let patience = self.silence.min(LATE_PATIENCE);
            next = next
                .max(self.heard + patience)
                .min(self.heard + self.silence);
        }
        next.min(self.deadline)
    }

    pub(super) const fn open_until(&self) -> Instant {
        self.open_until
    }

    /// The submissions that are not complete, with the outcomes that came.
    pub(super) fn into_incomplete(self) -> Vec<Submission> {
        self.submissions.into_iter().flatten().collect()
    }

    /// Something was told of a place: the first time its owner has one less on the way.
    fn hear(&mut self, place: u32, owners: &mut Vec<Owner>) -> Option<(usize, usize)> {
        let place = self.places.get_mut(usize::try_from(place).ok()?)?;
        let (submission, index) = (place.submission, place.index);
        if std::mem::take(&mut place.is_unheard) {
            self.unheard -= 1;
            if self.class == Class::Others {
                owners.extend(self.owner(submission).cloned());
            }
        }
        Some((submission, index))
    }
}

#[cfg(test)]
mod tests;
