//! Which workers live, as they said lately, and which of them a conversation goes to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use confab_protocol::ids::ConversationId;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Target, WorkerId};
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects;

/// Workers say every second that they live; who has not for this long is not picked.
const LATELY: Duration = Duration::from_secs(3);
/// More would be a flood of strangers, not workers.
const MOST: usize = 4096;

/// The workers heard of lately.
#[derive(Debug)]
pub struct Workers {
    bus: Bus,
    heard: Mutex<Vec<(WorkerId, Instant)>>,
}

impl Workers {
    /// Knows of none until [`Self::run`] has heard of some.
    #[must_use]
    pub const fn new(bus: Bus) -> Self {
        Self {
            bus,
            heard: Mutex::new(Vec::new()),
        }
    }

    /// Listens to the workers until `stop`.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BusError> {
        let subscribe = self.bus.client.subscribe(subjects::WORKERS);
        let mut messages = subscribe
            .await
            .map_err(BusError::nats("listen to the workers"))?;
        while let Some(Some(message)) = stop.run_until_cancelled(messages.next()).await {
            if let Ok(id) = Uuid::from_slice(&message.payload) {
                self.note(WorkerId(id), Instant::now());
            }
        }
        Ok(())
    }

    /// The worker of a conversation: every gateway that heard the same picks the same, by rendezvous hashing. Those in
    /// `not` have just failed it.
    #[must_use]
    pub fn pick(&self, conversation: ConversationId, not: &[WorkerId]) -> Target {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = heard
            .iter()
            .filter(|(id, at)| now.duration_since(*at) < LATELY && !not.contains(id));
        let best = alive.max_by_key(|(id, _)| (weight(conversation, *id), *id));
        best.map_or(Target::Any, |(id, _)| Target::Worker(*id))
    }

    /// Whether so many workers besides those in `not` said lately that they live.
    #[must_use]
    pub fn has_others(&self, count: usize, not: &[WorkerId]) -> bool {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let others = heard
            .iter()
            .filter(|(id, at)| now.duration_since(*at) < LATELY && !not.contains(id));
        others.count() >= count
    }

    /// A worker was not there: it is not picked again until it says that it lives.
    pub fn forget(&self, worker: WorkerId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|(id, _)| *id != worker);
    }

    fn note(&self, worker: WorkerId, now: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.iter_mut().find(|(id, _)| *id == worker) {
            Some((_, at)) => *at = now,
            None => {
                heard.retain(|(_, at)| now.duration_since(*at) < LATELY);
                if heard.len() < MOST {
                    heard.push((worker, now));
                }
            }
        }
    }
}

fn weight(conversation: ConversationId, worker: WorkerId) -> u64 {
    // Of weights that only multiply, the highest goes to few: rendezvous hashing needs a hash that mixes well.
    let mut hasher = DefaultHasher::new();
    (conversation, worker).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_spread_over_the_workers_and_move_only_from_one_that_is_gone() {
        let workers: Vec<_> = (0..4).map(|_| WorkerId(Uuid::now_v7())).collect();
        let best = |c, among: &[WorkerId]| *among.iter().max_by_key(|w| weight(c, **w)).unwrap();
        let mut counts = [0_usize; 4];
        for _ in 0..4000 {
            let conversation = ConversationId(Uuid::now_v7());
            let all = best(conversation, &workers);
            counts[workers.iter().position(|w| *w == all).unwrap()] += 1;
            if all != workers[3] {
                assert_eq!(best(conversation, &workers[..3]), all);
            }
        }
        assert!(counts.iter().all(|n| *n > 700), "{counts:?}");
    }
}
