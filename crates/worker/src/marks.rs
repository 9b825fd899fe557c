//! Read marks that wait, and which of them go together. Pure: it does no IO and takes the time.
//!
//! They are apart from the planner: a mark appends nothing, takes no conversation's lock and has no place in any order, so that
//! it never stands before a send. One statement at a time takes what has queued while the one before ran, in turn by tenant and user.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::fair::{FairQueue, Owner};

use crate::planner::{Amount, Bounds, Open, Pace};

/// Seqs and message ids that may wait; a tenant may have half of them, a user a quarter.
const MAX_WAITING: usize = 8192;
/// Seqs and message ids in one statement; one command is always taken.
const MAX_TOGETHER: usize = 1000;
/// After how long a mark of a membership that was locked is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Waiting<J> {
    /// In whose share it counts.
    pub(crate) owner: Owner,
    /// How many seqs or message ids it names.
    pub(crate) items: usize,
    /// From when on nobody waits for it any more.
    pub(crate) deadline: Instant,
    /// What earlier runs have left open.
    pub(crate) open: Open,
    /// What it is.
    pub(crate) job: J,
}

/// What is to be carried out now.
#[derive(Debug)]
pub(crate) struct Together<J> {
    /// In one statement; none when all that waited had expired.
    pub(crate) due: Vec<Waiting<J>>,
    /// Their deadline has passed: they are refused.
    pub(crate) expired: Vec<Waiting<J>>,
}

/// Who waits, and whether a statement runs.
#[derive(Debug)]
pub(crate) struct Marks<J> {
    waiting: FairQueue<Waiting<J>>,
    bounds: Bounds,
    /// Those that were locked, by when they are tried again.
    postponed: VecDeque<(Instant, Waiting<J>)>,
    is_running: bool,
}

impl<J> Waiting<J> {
    const fn amount(&self) -> Amount {
        Amount {
            events: self.items,
            bytes: 0,
        }
    }
}

impl<J> Marks<J> {
    pub(crate) fn new() -> Self {
        let most = Amount {
            events: MAX_WAITING,
            bytes: 0,
        };
        Self {
            waiting: FairQueue::default(),
            bounds: Bounds::new(most, Pace::of_sends()),
            postponed: VecDeque::new(),
            is_running: false,
        }
    }

    /// Takes a command in.
    ///
    /// # Errors
    /// Gives it back when too many wait.
    pub(crate) fn push(&mut self, waiting: Waiting<J>) -> Result<(), Waiting<J>> {
        let amount = waiting.amount();
        let admitted = self.bounds.admit(&waiting.owner, amount, Duration::MAX);
        if admitted.is_err() {
            return Err(waiting);
        }
        self.bounds.add(&waiting.owner, amount);
        self.waiting.push(&waiting.owner.clone(), waiting);
        Ok(())
    }

    /// Keeps what was locked until it is tried again. It keeps its room.
    pub(crate) fn postpone(&mut self, waiting: Waiting<J>, now: Instant) {
        self.bounds.add(&waiting.owner, waiting.amount());
        self.postponed.push_back((now + RETRY_DELAY, waiting));
    }

    /// When something that was locked is to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let first = self.postponed.front().filter(|_| !self.is_running);
        first.map(|(at, _)| *at)
    }

    /// What is to be carried out now; nothing while a statement runs, and when nothing waits.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Together<J>> {
        if self.is_running {
            return None;
        }
        while let Some((_, waiting)) = self.postponed.pop_front_if(|(at, _)| *at <= now) {
            self.waiting.push_front(&waiting.owner.clone(), waiting);
        }
        let (mut due, mut expired, mut items) = (Vec::new(), Vec::new(), 0);
        while let Some((owner, next)) = self.waiting.pop() {
            if items > 0 && items + next.items > MAX_TOGETHER {
                self.waiting.push_front(&owner, next);
                break;
            }
            self.bounds.sub(&owner, next.amount());
            if next.deadline <= now {
                expired.push(next);
            } else {
                self.waiting.charge(&owner, next.items, 0);
                items += next.items;
                due.push(next);
            }
        }
        self.is_running = !due.is_empty();
        (!due.is_empty() || !expired.is_empty()).then_some(Together { due, expired })
    }

    /// The statement ended.
    pub(crate) const fn finish(&mut self) {
        self.is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(items: usize, seconds: u64, now: Instant) -> Waiting<usize> {
        of("alice", items, seconds, now)
    }

    fn of(user: &str, items: usize, seconds: u64, now: Instant) -> Waiting<usize> {
        Waiting {
            owner: Owner {
                tenant: "t".parse().unwrap(),
                user: user.parse().unwrap(),
            },
            items,
            open: Open::default(),
            deadline: now + Duration::from_secs(seconds),
            job: items,
        }
    }

    fn jobs(waiting: &[Waiting<usize>]) -> Vec<usize> {
        waiting.iter().map(|one| one.job).collect()
    }

    #[test]
    fn what_queued_meanwhile_goes_together_up_to_a_cap() {
        let now = Instant::now();
        let mut marks = Marks::new();
        assert!(marks.next(now).is_none());
        marks.push(waiting(1, 1, now)).unwrap();
        assert_eq!(jobs(&marks.next(now).unwrap().due), [1]);
        for items in [100, 900, 1000, 3] {
            marks.push(waiting(items, 1, now)).unwrap();
        }
        assert!(marks.next(now).is_none());
        for expected in [&[100, 900][..], &[1000], &[3]] {
            marks.finish();
            assert_eq!(jobs(&marks.next(now).unwrap().due), expected);
        }
        marks.finish();
        assert!(marks.next(now).is_none());
    }

    #[test]
    fn what_expired_is_told_and_does_not_count() {
        let now = Instant::now();
        let mut marks = Marks::new();
        marks.push(waiting(1000, 0, now)).unwrap();
        marks.push(waiting(7, 1, now)).unwrap();
        let next = marks.next(now).unwrap();
        assert_eq!(
            (jobs(&next.due), jobs(&next.expired)),
            (vec![7], vec![1000])
        );
        marks.finish();
        marks.push(waiting(8, 0, now)).unwrap();
        let next = marks.next(now).unwrap();
        assert_eq!((jobs(&next.due), jobs(&next.expired)), (vec![], vec![8]));
        // Nothing runs: what comes next need not wait for anything.
        marks.push(waiting(9, 1, now)).unwrap();
        assert_eq!(jobs(&marks.next(now).unwrap().due), [9]);
    }

    #[test]
    fn too_many_are_refused() {
        let now = Instant::now();
        let mut marks = Marks::new();
        marks.push(waiting(MAX_WAITING / 4, 1, now)).unwrap();
        assert_eq!(marks.push(waiting(1, 1, now)).unwrap_err().job, 1);
        marks.push(of("bob", MAX_WAITING / 4, 1, now)).unwrap();
        assert_eq!(marks.push(of("carol", 1, 1, now)).unwrap_err().job, 1);
        marks.next(now).unwrap();
        marks.push(waiting(1, 1, now)).unwrap();
    }

    #[test]
    fn locked_mark_is_tried_again_before_others() {
        let now = Instant::now();
        let mut marks = Marks::new();
        marks.push(waiting(1, 1, now)).unwrap();
        let locked = marks.next(now).unwrap().due.remove(0);
        marks.finish();
        marks.postpone(locked, now);
        marks.push(waiting(2, 1, now)).unwrap();
        assert_eq!(jobs(&marks.next(now).unwrap().due), [2]);
        assert_eq!(marks.next_retry(), None);
        marks.finish();
        let retry = marks.next_retry().unwrap();
        assert!(marks.next(now).is_none());
        marks.push(waiting(3, 1, now)).unwrap();
        assert_eq!(jobs(&marks.next(retry).unwrap().due), [1, 3]);
    }
}
