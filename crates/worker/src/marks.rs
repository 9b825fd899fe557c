//! Read marks that wait, and which of them go together. Pure: it does no IO and takes the time.
//!
//! They are apart from the planner: a mark appends nothing, takes no conversation's lock and has no place in any order, so that
//! it never stands before a send. One statement at a time takes what has queued while the one before ran.

use std::collections::VecDeque;
use std::time::Instant;

/// Seqs and message ids that may wait; more are refused.
const WAITING: usize = 8192;
/// Seqs and message ids in one statement; one command is always taken.
const TOGETHER: usize = 1000;

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Waiting<J> {
    /// How many seqs or message ids it names.
    pub(crate) items: usize,
    /// From when on nobody waits for it any more.
    pub(crate) deadline: Instant,
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
    waiting: VecDeque<Waiting<J>>,
    items: usize,
    is_running: bool,
}

impl<J> Marks<J> {
    pub(crate) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            items: 0,
            is_running: false,
        }
    }

    /// Takes a command in.
    ///
    /// # Errors
    /// Gives it back when too many wait.
    pub(crate) fn push(&mut self, waiting: Waiting<J>) -> Result<(), Waiting<J>> {
        if self.items > 0 && self.items + waiting.items > WAITING {
            return Err(waiting);
        }
        self.items += waiting.items;
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// What is to be carried out now; nothing while a statement runs, and when nothing waits.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Together<J>> {
        if self.is_running || self.waiting.is_empty() {
            return None;
        }
        let (mut due, mut expired, mut items) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = self
            .waiting
            .pop_front_if(|next| items == 0 || items + next.items <= TOGETHER)
        {
            self.items -= next.items;
            if next.deadline <= now {
                expired.push(next);
            } else {
                items += next.items;
                due.push(next);
            }
        }
        self.is_running = !due.is_empty();
        Some(Together { due, expired })
    }

    /// The statement ended.
    pub(crate) const fn finish(&mut self) {
        self.is_running = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waiting(items: usize, seconds: u64, now: Instant) -> Waiting<usize> {
        Waiting {
            items,
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
        for items in [100, 900, 5000, 3] {
            marks.push(waiting(items, 1, now)).unwrap();
        }
        assert!(marks.next(now).is_none());
        for expected in [&[100, 900][..], &[5000], &[3]] {
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
        marks.push(waiting(WAITING, 1, now)).unwrap();
        assert_eq!(marks.push(waiting(1, 1, now)).unwrap_err().job, 1);
        marks.next(now).unwrap();
        marks.push(waiting(WAITING * 2, 1, now)).unwrap();
    }
}
