//! Hears what workers announce of commits that the feed does not carry, hands it to the hub, and says how long that lasts.

use std::time::{Duration, Instant};

use confab_bus::{Announcements, Bus};
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use confab_protocol::degraded::{Change, Degraded, EVENTS_LINGER, Recurring};
use confab_protocol::lingering::AnnouncementKind;
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::conditions::ANNOUNCED_CONDITION;
use crate::hub::actor::HubHandle;

/// It is over when nothing was announced for so long while NATS was connected.
const END_DELAY: Duration = Duration::from_secs(5);
/// How often it is looked whether it is over.
const CHECK_PERIOD: Duration = Duration::from_millis(500);
/// How soon a subscription that was refused is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// What an operator is to do.
const OPERATOR_REMEDY: &str = "Sessions are told from Postgres what JetStream does not carry, some seconds late. `/ready` and the logs of the workers say why, \
    and what to do.";

/// Since when workers announce commits; nothing while they do not.
#[derive(Debug, Clone)]
pub(crate) struct LingeringSince(watch::Receiver<Option<Timestamp>>);

impl LingeringSince {
    /// The condition, and who says it.
    pub(crate) fn new() -> (Self, watch::Sender<Option<Timestamp>>) {
        let (said, since) = watch::channel(None);
        (Self(since), said)
    }

    /// What `/ready` tells of it.
    pub(crate) fn degraded(&self) -> Option<Degraded> {
        let since = *self.0.borrow();
        since.map(|since| Degraded {
            what: EVENTS_LINGER.to_owned(),
            since,
            remedy: OPERATOR_REMEDY.to_owned(),
        })
    }
}

/// Hands announcements to the hub, and says since when there are some, until `stop`.
pub(crate) async fn run(
    bus: Bus,
    hub: HubHandle,
    since: watch::Sender<Option<Timestamp>>,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(Box::pin(hear(&bus, &hub, &since)))
        .await;
}

async fn hear(bus: &Bus, hub: &HubHandle, since: &watch::Sender<Option<Timestamp>>) {
    let mut condition = Recurring::new(END_DELAY);
    let monitor = Monitor::new(ANNOUNCED_CONDITION);
    loop {
        match Announcements::open(bus).await {
            Ok(announcements) => {
                follow(bus, hub, announcements, (&mut condition, &monitor, since)).await;
            }
            Err(error) => debug!(error = %chain(&error), "announcements cannot be heard yet"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Follows the announcements until the connection is closed.
async fn follow(
    bus: &Bus,
    hub: &HubHandle,
    mut announcements: Announcements,
    (condition, monitor, since): (&mut Recurring, &Monitor, &watch::Sender<Option<Timestamp>>),
) {
    let mut ticks = interval(CHECK_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_announced = tokio::select! {
            announcement = announcements.next() => {
                let Some(announcement) = announcement else { return };
                let lingers = announcement.kind == AnnouncementKind::Lingering;
                hub.announced(announcement).await;
                lingers
            }
            _ = ticks.tick() => false,
        };
        // While NATS is away nothing is heard: that says nothing.
        let is_seen = is_announced || condition.lasts() && !bus.is_connected();
        if is_announced {
            monitor.failed_for(&"workers announce commits that are not in the stream");
        }
        match condition.note(is_seen, Instant::now()) {
            Some(Change::Began) => {
                since.send_replace(Some(Timestamp::new(OffsetDateTime::now_utc())));
            }
            Some(Change::Ended) => {
                since.send_replace(None);
                monitor.holds();
            }
            None => {}
        }
    }
}
