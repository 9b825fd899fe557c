//! Which gateways live, as they said lately.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use confab_protocol::chain::chain;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects;

/// Interval at which a gateway says that it lives.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A gateway that was not heard for this long is dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long it is known that there was one.
const REMEMBERED_AGE: Duration = Duration::from_secs(24 * 3600);
/// All that live were heard when the link has stood for so long: it comes back within two seconds, and a gateway says then
/// within one that it lives.
const SETTLING_DELAY: Duration = Duration::from_secs(4);
/// More would be a flood of strangers, not gateways.
const MAX_GATEWAYS: usize = 4096;

/// A gateway process, made anew at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayId(pub Uuid);

impl std::fmt::Display for GatewayId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// The gateways heard of lately, this one among them. Clones share it.
#[derive(Debug, Clone)]
pub struct Gateways {
    bus: Bus,
    id: GatewayId,
    heard: Arc<Mutex<LastHeartbeats>>,
    /// Since when the others can be heard without a break.
    since: Arc<Mutex<Instant>>,
}

impl Gateways {
    /// A gateway with a fresh id; it knows of no other until [`Self::run`] has heard of some.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            id: GatewayId(Uuid::now_v7()),
            heard: Arc::default(),
            since: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// This gateway.
    #[must_use]
    pub const fn id(&self) -> GatewayId {
        self.id
    }

    /// Says every second that this gateway lives, and listens to the others, until `stop`. While NATS is away it says
    /// nothing and hears nobody, and goes on when NATS is back.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BusError> {
        let subscribe = self
            .bus
            .client
            .subscribe(subjects::GATEWAY_HEARTBEAT_SUBJECT);
        let mut messages = subscribe
            .await
            .map_err(BusError::nats("listen to the gateways"))?;
        let mut link = self.bus.connection();
        let mut announcements = interval(HEARTBEAT_INTERVAL);
        announcements.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = announcements.tick() => {
                    if let Err(error) = self.announce().await {
                        debug!(error = %chain(&error), "this gateway cannot say that it lives");
                    }
                }
                Ok(()) = link.changed() => {
                    *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                }
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    if let Ok(id) = Uuid::from_slice(&message.payload) {
                        self.lock().note(GatewayId(id), Instant::now());
                    }
                }
            }
        }
    }

    /// The gateways heard within 5 s, by id; this one is always among them.
    #[must_use]
    pub fn alive(&self) -> Vec<GatewayId> {
        let mut alive = self.lock().alive(Instant::now());
        if let Err(place) = alive.binary_search(&self.id) {
            alive.insert(place, self.id);
        }
        alive
    }

    /// The gateways that live; none where some that do may not have been heard yet.
    #[must_use]
    pub fn all_alive(&self) -> Option<Vec<GatewayId>> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        (since.elapsed() >= SETTLING_DELAY).then(|| self.alive())
    }

    /// Returns true if the link to NATS was broken and is back only since a moment: others may still be on their way.
    #[must_use]
    pub fn are_coming_back(&self) -> bool {
        let link = *self.bus.connection().borrow();
        link.epoch > 1 && self.all_alive().is_none()
    }

    /// Returns true if a gateway was heard within `period` that is not heard any more: it ended, or is cut off and lives.
    #[must_use]
    pub fn lost_within(&self, period: Duration) -> bool {
        self.lock().lost_within(period, Instant::now())
    }

    async fn announce(&self) -> Result<(), BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let payload = Bytes::copy_from_slice(self.id.0.as_bytes());
        self.bus
            .client
            .publish(subjects::GATEWAY_HEARTBEAT_SUBJECT, payload)
            .await
            .map_err(BusError::nats("announce the gateway"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LastHeartbeats> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who was heard when.
#[derive(Debug, Default)]
struct LastHeartbeats(Vec<(GatewayId, Instant)>);

impl LastHeartbeats {
    fn note(&mut self, gateway: GatewayId, now: Instant) {
        match self.0.iter_mut().find(|(id, _)| *id == gateway) {
            Some((_, at)) => *at = now,
            None => {
                let kept = if self.0.len() < MAX_GATEWAYS {
                    REMEMBERED_AGE
                } else {
                    HEARTBEAT_TIMEOUT
                };
                self.0.retain(|(_, at)| now.duration_since(*at) < kept);
                if self.0.len() < MAX_GATEWAYS {
                    self.0.push((gateway, now));
                }
            }
        }
    }

    fn lost_within(&self, period: Duration, now: Instant) -> bool {
        let mut silences = self.0.iter().map(|(_, at)| now.duration_since(*at));
        silences.any(|silence| silence >= HEARTBEAT_TIMEOUT && silence < period)
    }

    fn alive(&self, now: Instant) -> Vec<GatewayId> {
        let lately = |(id, at): &(GatewayId, Instant)| {
            (now.duration_since(*at) < HEARTBEAT_TIMEOUT).then_some(*id)
        };
        let mut alive: Vec<_> = self.0.iter().filter_map(lately).collect();
        alive.sort_unstable();
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_gateway_is_dead_until_next_heartbeat() {
        let id = |n| GatewayId(Uuid::from_u128(n));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heard = LastHeartbeats::default();
        heard.note(id(2), at(0));
        heard.note(id(1), at(1000));
        assert_eq!(heard.alive(at(4999)), [id(1), id(2)]);
        assert_eq!(heard.alive(at(5000)), [id(1)]);
        heard.note(id(2), at(5500));
        assert_eq!(heard.alive(at(5600)), [id(1), id(2)]);
    }

    #[test]
    fn silent_gateway_counts_as_lost_for_a_period() {
        let id = |n| GatewayId(Uuid::from_u128(n));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heard = LastHeartbeats::default();
        let period = Duration::from_secs(60);
        heard.note(id(1), at(0));
        assert!(!heard.lost_within(period, at(4)));
        assert!(heard.lost_within(period, at(6)));
        heard.note(id(2), at(50));
        assert!(
            heard.lost_within(period, at(59)),
            "another does not hide it"
        );
        heard.note(id(2), at(60));
        assert!(!heard.lost_within(period, at(61)));
    }

    #[test]
    fn strangers_without_end_take_no_memory_without_end() {
        let now = Instant::now();
        let mut heard = LastHeartbeats::default();
        for n in 0..2 * MAX_GATEWAYS as u128 {
            heard.note(GatewayId(Uuid::from_u128(n)), now);
        }
        assert_eq!(heard.0.len(), MAX_GATEWAYS);
        heard.note(GatewayId(Uuid::max()), now + HEARTBEAT_TIMEOUT);
        assert_eq!(
            heard.alive(now + HEARTBEAT_TIMEOUT),
            [GatewayId(Uuid::max())]
        );
    }
}
