//! What waits for each worker, and what goes in the next message to it. No IO.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_bus::rpc::Target;
use confab_protocol::error::{Code, Failure};
use confab_protocol::limits;
use rustc_hash::FxHashMap;

use super::submission::Submission;

/// Commands in one message at most.
const COMMANDS: usize = 1000;

/// What is left of a budget must be more than this to be worth a message.
const LEAST: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Submission>,
    on_the_way: usize,
}

/// A queue a target, each with a bounded number of messages on the way.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: FxHashMap<Target, Lane>,
    in_flight: usize,
    waiting: usize,
    waiting_bytes: usize,
}

impl Lanes {
    pub(super) fn new(in_flight: usize) -> Self {
        Self {
            lanes: FxHashMap::default(),
            in_flight,
            waiting: 0,
            waiting_bytes: 0,
        }
    }

    /// Commands that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes of the commands that wait.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn push(&mut self, target: Target, submission: Submission) {
        self.waiting += submission.count();
        self.waiting_bytes += submission.weight;
        self.lanes
            .entry(target)
            .or_default()
            .waiting
            .push_back(submission);
    }

    /// The next message that may go: whole submissions, as many as fit. What waited too long is refused instead.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Target, Vec<Submission>)> {
        loop {
            let in_flight = self.in_flight;
            let is_due = |lane: &Lane| lane.on_the_way < in_flight && !lane.waiting.is_empty();
            let target = self
                .lanes
                .iter()
                .find(|(_, lane)| is_due(lane))
                .map(|(target, _)| *target)?;
            let taken = self.take(target, now);
            if !taken.is_empty() {
                return Some((target, taken));
            }
        }
    }

    fn take(&mut self, target: Target, now: Instant) -> Vec<Submission> {
        let (mut taken, mut commands, mut bytes, mut attempts) = (Vec::new(), 0, 0, 0);
        let Some(lane) = self.lanes.get_mut(&target) else {
            return taken;
        };
        while let Some(submission) = lane.waiting.pop_front_if(|next: &mut Submission| {
            commands == 0
                || (commands + next.count() <= COMMANDS
                    && bytes + next.weight <= limits::RPC
                    && next.attempts == attempts)
        }) {
            self.waiting -= submission.count();
            self.waiting_bytes -= submission.weight;
            if submission.deadline <= now + LEAST {
                let code = if submission.handed_over {
                    Code::Timeout
                } else {
                    Code::Overloaded
                };
                submission.refuse(&Failure::of(code).retry_after(1000));
                continue;
            }
            commands += submission.count();
            bytes += submission.weight;
            attempts = submission.attempts;
            taken.push(submission);
        }
        lane.on_the_way += usize::from(!taken.is_empty());
        taken
    }

    /// Takes out what waits for a target, to go elsewhere.
    pub(super) fn abandon(&mut self, target: Target) -> VecDeque<Submission> {
        let lane = self.lanes.get_mut(&target);
        let waiting = lane.map_or_else(VecDeque::new, |lane| std::mem::take(&mut lane.waiting));
        for submission in &waiting {
            self.waiting -= submission.count();
            self.waiting_bytes -= submission.weight;
        }
        waiting
    }

    /// A message to the target came to its end.
    pub(super) fn finished(&mut self, target: Target) {
        if let Some(lane) = self.lanes.get_mut(&target) {
            lane.on_the_way -= 1;
            if lane.on_the_way == 0 && lane.waiting.is_empty() {
                self.lanes.remove(&target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::submission::tests::submission;
    use super::*;

    #[test]
    fn what_waits_while_messages_are_on_the_way_goes_together() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut lanes = Lanes::new(1);
        lanes.push(Target::Any, submission(1, 10, later).0);
        assert_eq!(lanes.next(now).unwrap().1.len(), 1);
        lanes.push(Target::Any, submission(2, 10, later).0);
        lanes.push(Target::Any, submission(3, 10, later).0);
        assert!(lanes.next(now).is_none());
        lanes.finished(Target::Any);
        let (_, together) = lanes.next(now).unwrap();
        assert_eq!(
            together.iter().map(|s| s.count()).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!((lanes.waiting(), lanes.waiting_bytes()), (0, 0));
    }

    #[test]
    fn a_retry_has_a_message_of_its_own_for_its_time_is_another() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut lanes = Lanes::new(4);
        for attempts in [0, 1, 1, 0] {
            let (mut next, _outcomes) = submission(1, 10, later);
            next.attempts = attempts;
            lanes.push(Target::Any, next);
        }
        let messages: Vec<_> = std::iter::from_fn(|| lanes.next(now)).collect();
        let sizes: Vec<_> = messages.iter().map(|(_, taken)| taken.len()).collect();
        assert_eq!(sizes, [1, 2, 1]);
    }

    #[test]
    fn what_waits_for_a_worker_that_is_gone_can_go_elsewhere() {
        let now = Instant::now();
        let mut lanes = Lanes::new(1);
        for _ in 0..3 {
            lanes.push(
                Target::Any,
                submission(1, limits::RPC, now + Duration::from_secs(5)).0,
            );
        }
        assert_eq!(lanes.next(now).unwrap().1.len(), 1);
        assert_eq!(lanes.abandon(Target::Any).len(), 2);
        assert_eq!((lanes.waiting(), lanes.waiting_bytes()), (0, 0));
        lanes.finished(Target::Any);
        assert!(lanes.abandon(Target::Any).is_empty());
    }

    #[test]
    fn a_message_fits_nats_and_late_commands_are_refused() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        let (late, mut outcome) = submission(1, 10, now);
        lanes.push(Target::Any, late);
        for _ in 0..3 {
            lanes.push(
                Target::Any,
                submission(1, limits::RPC / 2, now + Duration::from_secs(1)).0,
            );
        }
        assert_eq!(lanes.next(now).unwrap().1.len(), 1);
        assert_eq!(
            outcome.try_recv().unwrap()[0].as_ref().unwrap_err().code,
            Code::Overloaded
        );
        assert_eq!(lanes.next(now).unwrap().1.len(), 1);
    }
}
