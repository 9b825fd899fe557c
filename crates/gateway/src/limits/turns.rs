//! Turns at what takes a processor for long, such as verifying a signature: few tasks are ready for it at once, so that a flood of
//! requests makes nobody wait behind all of it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::available_parallelism;

use confab_protocol::fair::Owner;
use tokio::task::yield_now;

use crate::limits::permits::FairPermits;

/// Turns for each processor.
const TURNS_PER_PROCESSOR: usize = 2;

/// Turns, in which first addresses and then the tokens that come from one are served. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    turns: Arc<FairPermits>,
    hasher: RandomState,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            turns: FairPermits::new(TURNS_PER_PROCESSOR * processors),
            hasher: RandomState::new(),
        }
    }

    /// Waits for a turn. `address` is where the token came from, where that is known; who it names is not, before it was verified.
    pub(crate) async fn next(&self, address: Option<IpAddr>, token: &str) {
        if let Some(owner) = self.owner(address, token) {
            let turn = self.turns.acquire(&owner).await;
            // Every other task that is ready has its turn before; those without one find none meanwhile, and wait.
            yield_now().await;
            drop(turn);
        }
    }

    fn owner(&self, address: Option<IpAddr>, token: &str) -> Option<Owner> {
        let tenant = format!("{:016x}", self.hasher.hash_one(address));
        let user = format!("{:016x}", self.hasher.hash_one(token));
        Some(Owner {
            tenant: tenant.parse().ok()?,
            user: user.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn other_tokens_wait_behind_no_flood() {
        let turns = Turns::new();
        let (took, mut order) = mpsc::channel(1000);
        let mut tasks = JoinSet::new();
        let home = Some(Ipv4Addr::LOCALHOST.into());
        let loud = (0..400).map(|_| ("loud", home));
        for (who, address) in loud.chain([("quiet", home), ("far", None)]) {
            let (turns, took) = (turns.clone(), took.clone());
            tasks.spawn(async move {
                turns.next(address, who).await;
                took.send(who).await.unwrap();
            });
        }
        tasks.join_all().await;
        drop(took);
        let mut seen = Vec::new();
        while let Some(who) = order.recv().await {
            seen.push(who);
        }
        for who in ["quiet", "far"] {
            let place = seen.iter().position(|other| *other == who).unwrap();
            assert!(place < 20, "{who} had turn {place}");
        }
    }
}
