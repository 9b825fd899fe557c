//! Questions to workers whether a user is a member where the hub knows of no membership. Hardly anyone names a conversation of others:
//! whoever does is asked about slowly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use confab_protocol::fair::Owner;
use rustc_hash::FxHashMap;
use tokio::time::sleep_until;

use super::questions::permit;
use crate::limits::permits::{FairPermit, FairPermits};

/// Questions at once.
const MAX_CONCURRENT_LOOKUPS: usize = 2;
/// How long a user waits behind each answer that it is no member, whichever of its sessions asks.
const LOOKUP_PAUSE: Duration = Duration::from_millis(20);
/// Users whose pauses are remembered before those that are over are forgotten.
const MAX_USERS: usize = 10_000;

/// Who may ask, and when. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Lookups {
    permits: Arc<FairPermits>,
    pauses: Arc<Mutex<FxHashMap<Owner, Instant>>>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            permits: FairPermits::new(MAX_CONCURRENT_LOOKUPS),
            pauses: Arc::default(),
        }
    }

    /// Waits for the user's turn.
    pub(super) async fn turn(&self, owner: Option<&Owner>) -> Option<FairPermit> {
        let owner = owner?;
        if let Some(begin) = self.begin_of(owner, Instant::now()) {
            sleep_until(begin.into()).await;
        }
        permit(&self.permits, Some(owner)).await
    }

    /// When a user that is at a pause may ask: of several questions one behind each pause.
    fn begin_of(&self, owner: &Owner, now: Instant) -> Option<Instant> {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let end = pauses.get_mut(owner)?;
        if *end <= now {
            pauses.remove(owner);
            return None;
        }
        let begin = *end;
        *end += LOOKUP_PAUSE;
        Some(begin)
    }

    /// The user is no member of what it named.
    pub(super) fn refused(&self, owner: Option<&Owner>, now: Instant) {
        let Some(owner) = owner else { return };
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses.len() >= MAX_USERS {
            pauses.retain(|_, end| *end > now);
        }
        let end = pauses.entry(owner.clone()).or_insert(now);
        *end = (*end).max(now + LOOKUP_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(user: &str) -> Owner {
        Owner {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        }
    }

    #[test]
    fn user_of_foreign_conversations_asks_slowly() {
        let (lookups, now) = (Lookups::new(), Instant::now());
        let (loud, quiet) = (owner("loud"), owner("quiet"));
        assert_eq!(lookups.begin_of(&loud, now), None);
        lookups.refused(Some(&loud), now);
        for n in 1..=3 {
            assert_eq!(lookups.begin_of(&loud, now), Some(now + LOOKUP_PAUSE * n));
        }
        assert_eq!(lookups.begin_of(&quiet, now), None);
        assert_eq!(
            lookups.begin_of(&loud, now + LOOKUP_PAUSE * 4),
            None,
            "it is over"
        );
        assert_eq!(lookups.begin_of(&loud, now + LOOKUP_PAUSE * 4), None);
    }

    #[test]
    fn pauses_that_are_over_are_forgotten() {
        let (lookups, now) = (Lookups::new(), Instant::now());
        for n in 0..=MAX_USERS {
            lookups.refused(Some(&owner(&n.to_string())), now);
        }
        lookups.refused(Some(&owner("last")), now + LOOKUP_PAUSE);
        assert_eq!(lookups.pauses.lock().unwrap().len(), 1);
    }
}
