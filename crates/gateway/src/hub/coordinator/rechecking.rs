//! When workers cannot tell all that lingers: every user that is here is asked for again, evenly over a time, behind sessions that open. Unlike
//! behind a break nothing of what was answered is void.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reconciling::{MAX_CONCURRENT_QUERIES, MAX_QUERY_USERS};
use super::{Account, Coordinator};

/// How long a round over all users takes.
const ROUND_PERIOD: Duration = Duration::from_secs(60);
/// Rounds go on for so long behind the last announcement that more lingers than it tells.
const ROUNDS_END_DELAY: Duration = Duration::from_secs(5);
/// Users that are asked for in one step at most.
const MAX_STEP_USERS: usize = MAX_QUERY_USERS * MAX_CONCURRENT_QUERIES;

/// A round over all users.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// When more was last said to linger than is told.
    wanted: Option<Instant>,
    began: Option<Instant>,
    users: usize,
    /// Those who are still to be asked for.
    left: Vec<Arc<Account>>,
}

impl Round {
    /// More lingers than is told.
    pub(super) const fn want(&mut self, now: Instant) {
        self.wanted = Some(now);
    }

    /// Whether a round begins now.
    fn is_due(&self, now: Instant) -> bool {
        let over = |began: Instant| now.saturating_duration_since(began) >= ROUND_PERIOD;
        self.left.is_empty() && self.began.is_none_or(over)
    }

    fn begin(&mut self, users: Vec<Arc<Account>>, now: Instant) {
        (self.began, self.users, self.left) = (Some(now), users.len(), users);
    }

    /// The users whose turn it is by now.
    fn due(&mut self, now: Instant) -> Vec<Arc<Account>> {
        let Some(began) = self.began else {
            return Vec::new();
        };
        let elapsed = now.saturating_duration_since(began).min(ROUND_PERIOD);
        let due = elapsed.as_millis() * self.users as u128;
        let due = due.div_ceil(ROUND_PERIOD.as_millis());
        let due = usize::try_from(due).unwrap_or(usize::MAX);
        let asked = self.users - self.left.len();
        let count = due.saturating_sub(asked).min(MAX_STEP_USERS);
        let rest = self.left.len().saturating_sub(count);
        self.left.split_off(rest)
    }
}

impl Coordinator {
    /// More lingers than workers can tell.
    pub(crate) const fn recheck(&mut self, now: Instant) {
        self.round.want(now);
    }

    /// Asks for the users whose turn it is, where a round goes on.
    pub(crate) fn recheck_on(&mut self, now: Instant) {
        let is_wanted = |wanted: Instant| now.saturating_duration_since(wanted) < ROUNDS_END_DELAY;
        if !self.round.wanted.is_some_and(is_wanted) {
            self.round = Round::default();
            return;
        }
        if self.round.is_due(now) {
            let users = self.present.keys().cloned().collect();
            self.round.begin(users, now);
        }
        // Who opens is brought up to date by that; the round makes up for it later.
        let openings: usize = self.waiting_openings().iter().sum();
        if openings > 0 || self.reconciling >= MAX_CONCURRENT_QUERIES {
            return;
        }
        let due = self.round.due(now);
        if !due.is_empty() {
            self.to_reconcile.extend(due);
            self.reconcile_more();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_asks_for_each_user_once_and_evenly() {
        let start = Instant::now();
        let account = |n: usize| {
            Arc::new(Account {
                tenant: "t".parse().unwrap(),
                user: format!("u{n}").parse().unwrap(),
            })
        };
        let mut round = Round::default();
        assert!(round.is_due(start));
        round.begin((0..1000).map(account).collect(), start);
        let (mut all, mut most) = (Vec::new(), 0);
        for tick in 0..=240_u32 {
            let now = start + Duration::from_millis(250) * tick;
            assert_eq!(round.is_due(now), tick == 240 && round.left.is_empty());
            let due = round.due(now);
            most = most.max(due.len());
            all.extend(due.iter().map(|account| account.user.clone()));
        }
        assert!(most <= 5, "{most}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }
}
