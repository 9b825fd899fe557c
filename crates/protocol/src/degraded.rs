//! What a role tells at `/ready` while it does its work by another way than the usual one.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// The name of the condition in which commits are not in the stream of events, so that gateways read them from workers.
pub const EVENTS_LINGER: &str = "events_linger";

/// A condition in which a role does its work by another way: taking the process out of rotation would not help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The condition's name, such as [`EVENTS_LINGER`].
    pub what: String,
    /// When the process found it, by its own clock.
    pub since: Timestamp,
    /// What an operator is to do.
    pub remedy: String,
}

/// A condition that is seen again and again while it lasts, and is over when it was not seen for some time.
#[derive(Debug)]
pub struct Recurring {
    /// How long it must not have been seen until it is over.
    quiet: Duration,
    last_seen: Option<Instant>,
}

/// A change of a [`Recurring`] condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Began,
    /// It is over.
    Ended,
}

impl Recurring {
    /// A condition that was not seen yet.
    #[must_use]
    pub const fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            last_seen: None,
        }
    }

    /// Returns true if it lasts.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        self.last_seen.is_some()
    }

    /// Takes note whether the condition is seen at `now`. Says what that changes.
    pub fn note(&mut self, is_seen: bool, now: Instant) -> Option<Change> {
        match self.last_seen {
            None if is_seen => {
                self.last_seen = Some(now);
                Some(Change::Began)
            }
            Some(_) if is_seen => {
                self.last_seen = Some(now);
                None
            }
            Some(last) if now.saturating_duration_since(last) >= self.quiet => {
                self.last_seen = None;
                Some(Change::Ended)
            }
            None | Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_ends_once_after_quiet_time() {
        let mut condition = Recurring::new(Duration::from_secs(5));
        let (start, mut changes) = (Instant::now(), Vec::new());
        for (second, is_seen) in [
            (0, false),
            (1, true),
            (2, true),
            (6, false),
            (6, true),
            (10, false),
            (11, false),
            (12, false),
            (20, true),
        ] {
            let change = condition.note(is_seen, start + Duration::from_secs(second));
            changes.extend(change.map(|change| (second, change)));
        }
        let expected = [(1, Change::Began), (11, Change::Ended), (20, Change::Began)];
        assert_eq!(changes, expected);
        assert!(condition.lasts());
    }

    #[test]
    fn degraded_is_told_with_names_of_ready_body() {
        let degraded = Degraded {
            what: EVENTS_LINGER.to_owned(),
            since: "2026-11-29T21:00:00Z".parse().unwrap(),
            remedy: "look".to_owned(),
        };
        let text = r#"{"what":"events_linger","since":"2026-11-29T21:00:00.000Z","remedy":"look"}"#;
        assert_eq!(serde_json::to_string(&degraded).unwrap(), text);
        assert_eq!(serde_json::from_str::<Degraded>(text).unwrap(), degraded);
    }
}
