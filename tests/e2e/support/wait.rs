//! Waits for conditions with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something, and gives it.
///
/// # Panics
/// When it has found nothing within `deadline`: `what` says what was waited for.
pub(crate) async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A count: the issue's own with `CONFAB_TEST_SOAK=1`, else one that keeps the whole run short.
pub(crate) fn soak(full: usize, small: usize) -> usize {
    if is_soak() { full } else { small }
}

/// Whether full counts are asked for.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("CONFAB_TEST_SOAK").is_some_and(|value| value == "1")
}
