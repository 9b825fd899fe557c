//! Pages of messages out of many events.

use super::Parts;
use crate::Error;
use crate::output::Progress;
use crate::scenario::history::{self, Answers, Asking, Compared};
use crate::stack::Places;

const SEEDED_EVENTS: u64 = 1_000_000;
const MEASURED_ASKING: Asking = Asking {
    call_rate: 100.0,
    rounds: 4,
    round_seconds: 1.0,
};

/// Measures pages of a database of a million events, and of a small one.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let history = history::pages(places, SEEDED_EVENTS, MEASURED_ASKING, progress).await?;
    // The kind of page that grows most.
    let worst = history.calls.iter();
    let worst = worst.max_by(|one, other| one.ratio.total_cmp(&other.ratio));
    let p50 = |of: fn(&Compared) -> &Answers| worst.map_or(f64::NAN, |one| of(one).latency.p50);
    parts.put("millionPageMillis", p50(|one| &one.large));
    parts.put("tenThousandPageMillis", p50(|one| &one.small));
    let postgres =
        |of: fn(&Compared) -> &Answers| worst.map_or(f64::NAN, |one| of(one).postgres_micros);
    parts.put("millionPagePostgresMicros", postgres(|one| &one.large));
    parts.put("tenThousandPagePostgresMicros", postgres(|one| &one.small));
    Ok(())
}
