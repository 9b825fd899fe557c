//! The hub: its shards, the replay window, what is replayed, and the grace of presence.

use std::time::Duration;

use confab_bus::feed::BackfillWindow;

use super::actor::Replay;
use super::{ReplayLimits, Shards};
use crate::delivery::window::Bounds;
use crate::headings;
use crate::metrics::WindowMetrics;

/// The hub: its shards, the replay window, what is replayed, and the grace of presence.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct HubSettings {
    /// Time without any session after which a user counts as offline.
    #[arg(
        long,
        env = "CONFAB_PRESENCE_GRACE",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::TIMES_HEADING
    )]
    pub presence_grace: u64,
    /// Bytes of recent events that are kept for those who resume or are slow.
    ///
    /// 0 for none: then workers are asked for all.
    #[arg(
        long,
        env = "CONFAB_WINDOW_BYTES",
        value_name = "BYTES",
        default_value_t = 256 * 1024 * 1024,
        help_heading = headings::RESUMING_HEADING
    )]
    pub window_bytes: usize,
    /// Events replayed to a session that comes back.
    ///
    /// Of more, whole conversations are left to be read over HTTP.
    #[arg(
        long,
        env = "CONFAB_REPLAY_EVENTS",
        value_name = "NUMBER",
        default_value_t = 5000,
        help_heading = headings::RESUMING_HEADING
    )]
    pub replay_events: u64,
    /// Bytes replayed to a session that comes back.
    #[arg(
        long,
        env = "CONFAB_REPLAY_BYTES",
        value_name = "BYTES",
        default_value_t = 5 * 1024 * 1024,
        help_heading = headings::RESUMING_HEADING
    )]
    pub replay_bytes: usize,
    /// Shards of the hub, which hands events to sessions: as many processors as that may use.
    ///
    /// Conversations are spread over them.
    #[arg(
        long,
        env = "CONFAB_HUB_SHARDS",
        value_name = "NUMBER",
        default_value_t = default_shards(),
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = headings::QUEUES_HEADING
    )]
    pub hub_shards: u16,
}

impl HubSettings {
    /// How long a user without a session counts as online.
    pub(crate) const fn presence_grace(&self) -> Duration {
        Duration::from_secs(self.presence_grace)
    }

    /// How many shards the hub has.
    pub(crate) fn shards(&self) -> Shards {
        Shards::of(usize::from(self.hub_shards))
    }

    /// How far back the stream is read at a start, for events of this age; none where nothing is kept.
    pub(crate) fn window_reach(&self, age: Duration) -> Option<BackfillWindow> {
        let bytes = u64::try_from(self.window_bytes).unwrap_or(u64::MAX);
        (bytes > 0).then_some(BackfillWindow { age, bytes })
    }

    /// How much of what was missed is replayed, and from what: from a window of events up to this age.
    pub(crate) fn replay(&self, metrics: WindowMetrics, age: Duration) -> Replay {
        Replay {
            metrics,
            window: Bounds {
                age,
                bytes: self.window_bytes,
            },
            limits: ReplayLimits {
                events: self.replay_events,
                bytes: self.replay_bytes,
            },
            shards: self.shards(),
        }
    }
}

/// Half of the processors: sockets need the others.
fn default_shards() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors / 2)
        .unwrap_or(u16::MAX)
        .clamp(1, 8)
}
