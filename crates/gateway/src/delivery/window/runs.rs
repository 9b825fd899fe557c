//! A set of seqs that are nearly all beside each other.

use confab_protocol::ids::Seq;

/// Runs that are told apart; of more, the lowest are given up.
const MAX_RUNS: usize = 64;

/// The runs of seqs without a hole, each its first and last, in order.
#[derive(Debug, Default)]
pub(super) struct SeqRuns(Vec<(Seq, Seq)>);

impl SeqRuns {
    /// The highest run.
    pub(super) fn last(&self) -> Option<(Seq, Seq)> {
        self.0.last().copied()
    }

    /// Adds a seq.
    pub(super) fn insert(&mut self, seq: Seq) {
        let at = self.0.partition_point(|(first, _)| *first <= seq);
        let before = at.checked_sub(1).and_then(|before| self.0.get_mut(before));
        let joined = match before {
            Some((_, last)) if *last >= seq => return,
            Some((_, last)) if *last == seq.saturating_sub(1) => {
                *last = seq;
                true
            }
            Some(_) | None => false,
        };
        let behind = self
            .0
            .get(at)
            .copied()
            .filter(|(first, _)| *first - 1 == seq);
        match (joined, behind) {
            (true, Some((_, end))) => {
                self.0.remove(at);
                if let Some((_, last)) = self.0.get_mut(at - 1) {
                    *last = end;
                }
            }
            (true, None) => {}
            (false, Some(_)) => {
                if let Some((first, _)) = self.0.get_mut(at) {
                    *first = seq;
                }
            }
            (false, None) => self.0.insert(at, (seq, seq)),
        }
        if self.0.len() > MAX_RUNS {
            self.0.remove(0);
        }
    }

    /// Removes every seq up to `floor`.
    pub(super) fn trim(&mut self, floor: Seq) {
        let gone = self.0.partition_point(|(_, last)| *last <= floor);
        self.0.drain(..gone);
        if let Some((first, _)) = self.0.first_mut() {
            *first = (*first).max(floor.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_those_of_a_plain_set(steps in prop::collection::vec((1..60_u64, any::<bool>()), 1..80)) {
            let (mut runs, mut set) = (SeqRuns::default(), BTreeSet::new());
            for (seq, is_trim) in steps {
                if is_trim && seq < 20 {
                    runs.trim(seq);
                    set.retain(|held| *held > seq);
                } else {
                    runs.insert(seq);
                    set.insert(seq);
                }
                let of_runs: Vec<_> = runs.0.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(&of_runs, &set.iter().copied().collect::<Vec<_>>());
                let apart = runs.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
                prop_assert!(apart);
            }
        }
    }

    #[test]
    fn too_many_runs_leave_the_highest() {
        let mut runs = SeqRuns::default();
        for seq in 1..=MAX_RUNS as Seq + 10 {
            runs.insert(seq * 2);
        }
        assert_eq!(runs.0.len(), MAX_RUNS);
        assert_eq!(runs.last().unwrap().1, (MAX_RUNS as Seq + 10) * 2);
    }
}
