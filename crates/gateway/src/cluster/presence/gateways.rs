//! The gateways that said something, and which of them are dead.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_bus::GatewayId;
use rustc_hash::{FxHashMap, FxHashSet};

/// A gateway that spoke within this lives, also when it was not heard yet to say so.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For so long what a gateway repeats that is back is news.
const RETURN_PERIOD: Duration = Duration::from_secs(10);
/// Dead gateways that are remembered, in case they were only cut off.
const MAX_DEAD_GATEWAYS: usize = 1024;

/// The gateways whose words count.
#[derive(Debug, Default)]
pub(super) struct PeerGateways {
    spoke: FxHashMap<GatewayId, Instant>,
    dead: VecDeque<GatewayId>,
    /// Those that counted as dead, by when it was heard that they live.
    returned: FxHashMap<GatewayId, Instant>,
}

impl PeerGateways {
    /// A gateway said something. Says whether it counted as dead until a moment ago.
    pub(super) fn spoke(&mut self, gateway: GatewayId, now: Instant) -> bool {
        self.spoke.insert(gateway, now);
        if self.dead.contains(&gateway) {
            self.returned.insert(gateway, now);
        }
        let returned = self.returned.get(&gateway);
        returned.is_some_and(|at| now.duration_since(*at) < RETURN_PERIOD)
    }

    /// Those whose words count, but for some.
    pub(super) fn but_for(&self, some: &FxHashSet<GatewayId>) -> FxHashSet<GatewayId> {
        let others = self.spoke.keys();
        others.filter(|one| !some.contains(one)).copied().collect()
    }

    /// Those that died since, and whether one lives that had died.
    pub(super) fn compare(&mut self, alive: &[GatewayId], now: Instant) -> (Vec<GatewayId>, bool) {
        self.returned
            .retain(|_, at| now.duration_since(*at) < RETURN_PERIOD);
        let before = self.dead.len();
        self.dead.retain(|gateway| {
            let is_dead = !alive.contains(gateway);
            if !is_dead {
                self.returned.insert(*gateway, now);
            }
            is_dead
        });
        let is_back = self.dead.len() != before;
        let lives = |gateway: &GatewayId, at: &Instant| {
            alive.contains(gateway) || now.duration_since(*at) < ALIVE_TIMEOUT
        };
        let spoke = self.spoke.iter();
        let dead: Vec<_> = spoke
            .filter(|(gateway, at)| !lives(gateway, at))
            .map(|(gateway, _)| *gateway)
            .collect();
        for gateway in &dead {
            self.spoke.remove(gateway);
            self.dead.push_back(*gateway);
        }
        let surplus = self.dead.len().saturating_sub(MAX_DEAD_GATEWAYS);
        self.dead.drain(..surplus);
        (dead, is_back)
    }
}
