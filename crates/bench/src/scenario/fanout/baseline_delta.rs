//! What a fan-out does to those who only send to small conversations.

use serde::Serialize;

use super::{Audience, FanoutLoad};
use crate::Error;
use crate::output::{Progress, row};
use crate::scenario::send;
use crate::target::Target;

/// How often both are measured, in turn.
const COMPARED_ROUNDS: usize = 3;
/// Small conversations, of an audience that is as large.
const SMALL_CONVERSATIONS: usize = 200;
/// How long each is measured at most, and how long before that.
const MAX_MEASURE_SECONDS: u64 = 3;
const WARM_UP_SECONDS: u64 = 1;

/// Sends to small conversations, without a fan-out and while one runs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendsDelta {
    /// Sends a second to small conversations.
    pub(crate) rate: f64,
    /// Frames a second that the fan-out was to write meanwhile.
    pub(crate) frames: f64,
    /// Without it.
    pub(crate) without: send::SendOutcome,
    /// While it ran.
    pub(crate) with: send::SendOutcome,
    /// p99 until the acknowledgement with it : without it.
    pub(crate) ratio: f64,
}

/// Sends at `rate` to conversations of two, with the audience connected: while it hears nothing, and while the load runs at its
/// rate, both for no longer than the load. Of several turns the one whose ratio is the middle one.
pub(crate) async fn sends_delta(
    target: &mut Target,
    audience: &Audience,
    load: &FanoutLoad,
    rate: f64,
    progress: &Progress,
) -> Result<SendsDelta, Error> {
    let sends = send::SendLoad {
        rate,
        conversations: load.members.clamp(1, SMALL_CONVERSATIONS),
        text: load.text,
        warm_up: load.warm_up.min(WARM_UP_SECONDS),
        seconds: load.seconds.min(MAX_MEASURE_SECONDS),
        ..send::SendLoad::default()
    };
    let steady = FanoutLoad {
        max: false,
        ..load.clone()
    };
    let mut turns = Vec::new();
    for _ in 0..COMPARED_ROUNDS {
        let without = Box::pin(send::measure(target, &sends, progress)).await?;
        let mut speaking = audience.speak(&steady);
        let with = Box::pin(send::measure(target, &sends, progress)).await?;
        speaking.shutdown().await;
        audience.check()?;
        turns.push(SendsDelta {
            rate,
            frames: steady.rate * steady.members as f64,
            ratio: with.acknowledged.p99 / without.acknowledged.p99,
            without,
            with,
        });
    }
    turns.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
    let middle = turns.into_iter().nth(COMPARED_ROUNDS / 2);
    middle.ok_or_else(|| Error::Failed("nothing was compared".to_owned()))
}

impl SendsDelta {
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        vec![
            row(
                format!("{:.0} sends/s without it", self.rate),
                self.without.acknowledged.text(),
            ),
            row(
                format!("{:.0} sends/s with {:.0} frames/s", self.rate, self.frames),
                self.with.acknowledged.text(),
            ),
            row("p99 with it : without", format!("{:.2}", self.ratio)),
        ]
    }
}
