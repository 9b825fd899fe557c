//! A fan-out to many sockets, beside bare servers and beside sends to small conversations.

use super::Parts;
use crate::Error;
use crate::limits::baseline;
use crate::output::Progress;
use crate::scenario::fanout::{self, Audience, FanoutLoad};
use crate::stack::{Places, Stack, StackShape};
use crate::target::Target;

/// Sends a second beside it.
const SENDS_PER_SECOND: f64 = 500.0;

/// Measures both with one audience.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    progress.say("fan-out: starting a confab");
    let stack = Stack::start(places, &StackShape::default()).await?;
    let mut target = Target::Own(Box::new(stack));
    let load = FanoutLoad {
        max: true,
        seconds: 9,
        ..FanoutLoad::default()
    };
    let audience = Audience::of_confab(&target, &load, progress).await?;
    let baselines = baseline::start_all(places, target.urls().len()).await?;
    let compared = fanout::compare(&mut target, &audience, &baselines, &load, progress).await?;
    baseline::stop_all(baselines).await?;
    parts.put("fanOutFrames", compared.confab.frames);
    parts.put(
        "bareFanOutFrames",
        compared.bare.map_or(f64::NAN, |bare| bare.frames),
    );
    let beside =
        fanout::sends_delta(&mut target, &audience, &load, SENDS_PER_SECOND, progress).await?;
    parts.put("besideFanOutP99Millis", beside.with.acknowledged.p99);
    parts.put("withoutFanOutP99Millis", beside.without.acknowledged.p99);
    parts.put("besideFanOutP50Millis", beside.with.acknowledged.p50);
    parts.put("withoutFanOutP50Millis", beside.without.acknowledged.p50);
    parts.put("besideFanOutFrames", beside.frames);
    drop(audience);
    target.stop().await
}
