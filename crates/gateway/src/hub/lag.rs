//! Shows how far the hub is behind the reader of the feed, and says when it does not keep up.

use std::time::{Duration, Instant};

use confab_protocol::condition::Monitor;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::conditions::HUB_CONDITION;
use crate::metrics::{FeedMetrics, MAX_LAG};

/// How often the lag is shown.
const SHOW_PERIOD: Duration = Duration::from_millis(250);

/// Shows the lag until `stop`, also while the hub does nothing.
pub(crate) async fn run(metrics: FeedMetrics, stop: CancellationToken) {
    let mut period = interval(SHOW_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let monitor = Monitor::new(HUB_CONDITION);
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        metrics.show_hub_lag();
        if metrics.keeps_up(Instant::now()) {
            monitor.succeeded();
        } else {
            monitor.failed_for(&format_args!(
                "a shard is more than {MAX_LAG:?} behind, or took no turn for as long"
            ));
        }
    }
}
