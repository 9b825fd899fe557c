//! The gateways that said something, and which of them are dead.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_bus::GatewayId;
use rustc_hash::FxHashMap;

/// A gateway that spoke within this lives, also when it was not heard yet to say so.
const FRESH: Duration = Duration::from_secs(5);
/// Dead gateways that are remembered, in case they were only cut off.
const DEAD: usize = 1024;

/// The gateways whose words count.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    spoke: FxHashMap<GatewayId, Instant>,
    dead: VecDeque<GatewayId>,
}

impl Speakers {
    /// A gateway said something.
    pub(super) fn spoke(&mut self, gateway: GatewayId, now: Instant) {
        self.spoke.insert(gateway, now);
    }

    /// Those that died since, and whether one lives that had died.
    pub(super) fn compare(&mut self, alive: &[GatewayId], now: Instant) -> (Vec<GatewayId>, bool) {
        let before = self.dead.len();
        self.dead.retain(|gateway| !alive.contains(gateway));
        let is_back = self.dead.len() != before;
        let lives = |gateway: &GatewayId, at: &Instant| {
            alive.contains(gateway) || now.duration_since(*at) < FRESH
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
        let surplus = self.dead.len().saturating_sub(DEAD);
        self.dead.drain(..surplus);
        (dead, is_back)
    }
}
