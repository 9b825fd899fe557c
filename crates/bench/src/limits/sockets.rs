//! A bare server with many sockets: what it writes to all of them, and what it holds for one that is idle.

use std::time::Duration;

use serde::Serialize;

use super::jetstream::event;
use super::sender::PartMeasurement;
use crate::Error;
use crate::output::Progress;
use crate::scenario::fanout;
use crate::scenario::idle::{self, HeldMemory};
use crate::stack::Places;

/// Frames of an event to every socket: the same frames that a gateway writes to as many members.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BareFanOut {
    pub(crate) sockets: usize,
    /// An operation is a frame; the latency is from the time that an event was meant for until its frame is at a socket.
    #[serde(flatten)]
    pub(crate) part: PartMeasurement,
}

/// One bare server writes as many events to its sockets as keep them busy, for whole seconds, one at least.
pub(super) async fn fan_out(
    places: &Places,
    sockets: usize,
    length: Duration,
    progress: &Progress,
) -> Result<BareFanOut, Error> {
    let load = fanout::FanoutLoad {
        members: sockets,
        max: true,
        warm_up: 1,
        seconds: length.as_secs().max(1),
        ..fanout::FanoutLoad::default()
    };
    let outcome = fanout::of_baseline(places, &event(0)?.json, &load, progress).await?;
    let used = outcome.processor.unwrap_or_default();
    Ok(BareFanOut {
        sockets,
        part: PartMeasurement {
            per_second: outcome.frames,
            latency: outcome.heard,
            server_micros: used.gateways,
            client_micros: used.load,
        },
    })
}

/// What a bare server holds for each of as many sockets that it reads, and that say nothing.
pub(super) async fn idle(
    places: &Places,
    sockets: usize,
    length: Duration,
    progress: &Progress,
) -> Result<HeldMemory, Error> {
    let load = idle::IdleLoad {
        connections: sockets,
        // A short try need not wait as long as a measurement.
        settle: idle::SETTLE_SECONDS.min(2.0 * length.as_secs_f64()),
        ..idle::IdleLoad::default()
    };
    idle::baseline(places, &load, progress).await
}
