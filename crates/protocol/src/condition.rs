//! Conditions that a process needs to do its work, and what its log says of them: one warning when one begins to fail, a rare
//! reminder while it lasts, one line when it holds again.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::chain::chain;

/// The time between two lines about a condition that goes on failing.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);
/// For how long nothing may fail until a condition that many tries tell of counts as holding again.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// A condition's declaration: the log lines are made from it, and docs/operations/logs.md lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its name, in the field `condition` of each of its lines.
    pub name: &'static str,
    /// What the warning says, without a full stop.
    pub fails: &'static str,
    /// What the line says with which the condition holds again.
    pub holds: &'static str,
    /// What to do, in the warning's field `remedy`.
    pub remedy: &'static str,
    /// For how long it must fail until that is told: what mends itself sooner is no news.
    pub patience: Duration,
}

/// The state of a condition in this process. All methods may be called from anywhere and often: while the condition holds, none
/// but a failure costs more than reading a flag.
pub struct Monitor {
    condition: Condition,
    /// Which of several it is about, in the field `subject`.
    subject: Option<String>,
    is_failing: AtomicBool,
    state: Mutex<FailureState>,
}

/// A failing condition.
#[derive(Debug, Default)]
struct FailureState {
    /// The first failure since it last held.
    since: Option<Instant>,
    /// The last one.
    failed: Option<Instant>,
    /// True if a try went well behind that, too soon to count.
    has_succeeded: bool,
    /// When a line was last written about it; none where nothing was told yet.
    told: Option<Instant>,
}

/// A warning that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DueWarning {
    /// The first since it held.
    Begin,
    /// It has failed for so long by now.
    Reminder(Duration),
}

impl Monitor {
    /// Of a condition that is taken to hold.
    #[must_use]
    pub const fn new(condition: Condition) -> Self {
        Self {
            condition,
            subject: None,
            is_failing: AtomicBool::new(false),
            state: Mutex::new(FailureState {
                since: None,
                failed: None,
                has_succeeded: false,
                told: None,
            }),
        }
    }

    /// Of one of several that the same condition is told of: an issuer's key set, say.
    #[must_use]
    pub fn about(condition: Condition, subject: String) -> Self {
        Self {
            subject: Some(subject),
            ..Self::new(condition)
        }
    }

    /// Notes a failure, and its error with all causes where a line is due.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.failed_for(&chain(error));
    }

    /// Notes a failure for a reason that is no error.
    pub fn failed_for(&self, reason: &dyn fmt::Display) {
        if let Some(due) = self.note_failure(Instant::now()) {
            self.warn(due, reason);
        }
    }

    /// Returns true if a failure now would write a line: for who must look for the reason first.
    #[must_use]
    pub fn is_line_due(&self) -> bool {
        self.lock()
            .due(self.condition.patience, Instant::now())
            .is_some()
    }

    /// Returns true if it is known to fail, told or not.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Notes that the condition holds, as is known for certain.
    pub fn holds(&self) {
        if self.is_failing() {
            let lasted = self.note_holding(Instant::now(), Duration::ZERO);
            self.tell_end(lasted);
        }
    }

    /// Notes that one try of several went well: the condition holds once none has failed for three seconds. Where nothing may be tried for
    /// long behind that, [`Self::settle`] is to be called on a period.
    pub fn succeeded(&self) {
        if self.is_failing() {
            let lasted = self.note_success(Instant::now());
            self.tell_end(lasted);
        }
    }

    /// Takes note that time passes: what went well behind the last failure counts three seconds later, also where nothing is tried since.
    pub fn settle(&self) {
        if self.is_failing() {
            let lasted = self.note_time(Instant::now());
            self.tell_end(lasted);
        }
    }

    fn note_failure(&self, now: Instant) -> Option<DueWarning> {
        let mut state = self.lock();
        // Under the lock, as it is cleared: else it could say that all is well where a failure was noted.
        self.is_failing.store(true, Ordering::Relaxed);
        state.since.get_or_insert(now);
        state.failed = Some(now);
        state.has_succeeded = false;
        let due = state.due(self.condition.patience, now);
        if due.is_some() {
            state.told = Some(now);
        }
        due
    }

    fn note_success(&self, now: Instant) -> Option<Duration> {
        self.lock().has_succeeded = true;
        self.note_time(now)
    }

    fn note_time(&self, now: Instant) -> Option<Duration> {
        let has_succeeded = self.lock().has_succeeded;
        has_succeeded
            .then(|| self.note_holding(now, SETTLE_TIME))
            .flatten()
    }

    /// For how long it failed, where that was told and nothing has failed for `settled`.
    fn note_holding(&self, now: Instant, settled: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let calm = now.saturating_duration_since(state.failed?);
        if calm < settled {
            return None;
        }
        self.is_failing.store(false, Ordering::Relaxed);
        let FailureState { since, told, .. } = std::mem::take(&mut *state);
        told.and(since)
            .map(|since| now.saturating_duration_since(since))
    }

    fn warn(&self, due: DueWarning, reason: &dyn fmt::Display) {
        let subject = self.subject.as_deref();
        let Condition {
            name,
            fails,
            remedy,
            ..
        } = self.condition;
        match due {
            DueWarning::Begin => {
                warn!(condition = name, subject, error = %reason, remedy, "{fails}");
            }
            DueWarning::Reminder(lasting) => warn!(
                condition = name,
                subject,
                error = %reason,
                remedy,
                duration_ms = milliseconds(lasting),
                "{fails}, still"
            ),
        }
    }

    fn tell_end(&self, lasted: Option<Duration>) {
        if let Some(lasted) = lasted {
            let Condition { name, holds, .. } = self.condition;
            info!(
                condition = name,
                subject = self.subject.as_deref(),
                duration_ms = milliseconds(lasted),
                "{holds}"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, FailureState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.condition.name;
        f.debug_tuple("Monitor").field(&name).finish()
    }
}

impl FailureState {
    /// The line that a failure at `now` is due.
    fn due(&self, patience: Duration, now: Instant) -> Option<DueWarning> {
        let since = self.since.unwrap_or(now);
        let lasting = now.saturating_duration_since(since);
        match self.told {
            None => (lasting >= patience).then_some(DueWarning::Begin),
            Some(told) => {
                let silence = now.saturating_duration_since(told);
                (silence >= REMINDER_INTERVAL).then_some(DueWarning::Reminder(lasting))
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn monitor(patience_ms: u64) -> Monitor {
        Monitor::new(Condition {
            name: "test",
            fails: "it fails",
            holds: "it holds again",
            remedy: "none",
            patience: Duration::from_millis(patience_ms),
        })
    }

    #[test]
    fn failure_is_told_once_then_once_a_minute() {
        let monitor = monitor(0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(monitor.note_failure(at(0)), Some(DueWarning::Begin));
        for second in 1..60 {
            assert_eq!(monitor.note_failure(at(second)), None);
        }
        let minute = Duration::from_secs(60);
        assert_eq!(
            monitor.note_failure(at(60)),
            Some(DueWarning::Reminder(minute))
        );
        assert_eq!(monitor.note_failure(at(119)), None);
        let lasted = Duration::from_secs(130);
        assert_eq!(monitor.note_holding(at(130), Duration::ZERO), Some(lasted));
        assert_eq!(monitor.note_holding(at(131), Duration::ZERO), None);
        assert_eq!(monitor.note_failure(at(132)), Some(DueWarning::Begin));
    }

    #[test]
    fn short_failure_is_not_told() {
        let monitor = monitor(2000);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(monitor.note_failure(at(0)), None);
        assert_eq!(monitor.note_failure(at(1999)), None);
        assert_eq!(monitor.note_holding(at(1999), Duration::ZERO), None);
        assert_eq!(monitor.note_failure(at(2000)), None);
        assert_eq!(monitor.note_failure(at(4000)), Some(DueWarning::Begin));
    }

    #[test]
    fn successes_among_failures_end_nothing() {
        let monitor = monitor(0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(monitor.note_failure(at(0)), Some(DueWarning::Begin));
        assert_eq!(monitor.note_success(at(2)), None);
        assert_eq!(monitor.note_failure(at(4)), None);
        assert_eq!(monitor.note_success(at(6)), None);
        let lasted = Duration::from_secs(7);
        assert_eq!(monitor.note_success(at(7)), Some(lasted));
    }

    #[test]
    fn success_counts_later_where_nothing_is_tried() {
        let monitor = monitor(0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(monitor.note_failure(at(0)), Some(DueWarning::Begin));
        assert_eq!(monitor.note_time(at(60)), None, "nothing went well");
        assert_eq!(
            monitor.note_failure(at(60)),
            Some(DueWarning::Reminder(at(60) - start))
        );
        assert_eq!(monitor.note_success(at(61)), None);
        assert_eq!(monitor.note_time(at(62)), None);
        assert_eq!(monitor.note_time(at(63)), Some(at(63) - start));
        assert!(!monitor.is_failing());
    }
}
