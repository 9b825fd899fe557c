//! A committer as a worker drives it: what was locked is carried out again, by waiting for the lock, until its deadline.

use std::time::{Duration, Instant};

use confab_protocol::command::Request;
use prometheus_client::registry::Registry;

use crate::commit::{CommandOutcome, Committer, Fate, Item, Mark};
use crate::database::Pool;
use crate::metrics::Metrics;
use crate::outbox::Committed;
use crate::planner::{Locking, Open};

const RETRY_DELAY: Duration = Duration::from_millis(5);

/// What became of a batch in the end.
pub(crate) struct Finished {
    pub(crate) outcomes: Vec<CommandOutcome>,
    pub(crate) committed: Vec<Committed>,
}

impl Committer {
    /// One that has this pool for whatever it does.
    pub(crate) fn on(pool: &Pool) -> Self {
        let pools = [pool.clone(), pool.clone(), pool.clone()];
        Self::new(pools, Metrics::new(&mut Registry::default()))
    }

    pub(crate) async fn finish_batch(&self, items: &[Item]) -> Finished {
        let end = self.batch(items, Locking::Skip).await;
        let mut committed = end.committed;
        let mut outcomes = Vec::new();
        for (item, mut fate) in items.iter().zip(end.fates) {
            let outcome = loop {
                let open = match fate {
                    Fate::Decided(outcome) => break outcome,
                    Fate::Locked(open) if item.deadline <= Instant::now() => {
                        break Err(open.when_late());
                    }
                    Fate::Locked(open) => open,
                };
                let again = Item {
                    append: item.append.clone(),
                    deadline: item.deadline,
                    open,
                    origin: item.origin.clone(),
                };
                let mut end = self.batch(&[again], Locking::Wait).await;
                committed.append(&mut end.committed);
                fate = end.fates.remove(0);
            };
            outcomes.push(outcome);
        }
        Finished {
            outcomes,
            committed,
        }
    }

    pub(crate) async fn finish_alone(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> (CommandOutcome, Option<Committed>) {
        let (mut locking, mut open) = (Locking::Skip, Open::default());
        loop {
            match self.alone(request, deadline, locking, open).await {
                (Fate::Decided(outcome), committed) => return (outcome, committed),
                (Fate::Locked(last), _) if deadline <= Instant::now() => {
                    return (Err(last.when_late()), None);
                }
                (Fate::Locked(last), _) => (locking, open) = (Locking::Wait, last),
            }
        }
    }

    pub(crate) async fn finish_marks(&self, marks: &[Mark]) -> Vec<CommandOutcome> {
        let mut outcomes = Vec::new();
        for (mark, mut fate) in marks.iter().zip(self.mark(marks).await) {
            let outcome = loop {
                match fate {
                    Fate::Decided(outcome) => break outcome,
                    Fate::Locked(open) if mark.deadline <= Instant::now() => {
                        break Err(open.when_late());
                    }
                    Fate::Locked(_) => {}
                }
                tokio::time::sleep(RETRY_DELAY).await;
                fate = self.mark(std::slice::from_ref(mark)).await.remove(0);
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}
