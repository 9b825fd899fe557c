//! What operators are told of pages that may not call: a browser tells neither the page nor its user why.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use tracing::warn;

/// The time within which an origin is logged once.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Origins logged within that time: whoever calls can name any.
const MAX_LOGGED_ORIGINS: usize = 16;
/// Bytes of an origin: a host's name has at most 253 (RFC 1035, section 2.3.4).
const MAX_ORIGIN_BYTES: usize = 300;

/// The log of origins that are refused.
#[derive(Debug, Default)]
pub(crate) struct OriginLog {
    logged: Mutex<Logged>,
}

#[derive(Debug, Default)]
struct Logged {
    since: Option<Instant>,
    origins: BTreeSet<String>,
}

impl OriginLog {
    /// Logs that pages of an origin were refused, where it was not logged lately.
    pub(super) fn refused(&self, origin: Option<&HeaderValue>) {
        let origin = origin.and_then(|origin| origin.to_str().ok());
        if let Some(origin) = origin
            && self.is_due(origin, Instant::now())
        {
            warn!(
                origin,
                setting = "CONFAB_CORS_ORIGINS",
                remedy = "add the origin to --cors-origins, where its pages may call",
                "pages of an origin that is not on the list are refused"
            );
        }
    }

    fn is_due(&self, origin: &str, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since| now.saturating_duration_since(since) >= LOG_INTERVAL;
        if logged.since.is_none_or(is_over) {
            logged.since = Some(now);
            logged.origins.clear();
        }
        origin.len() <= MAX_ORIGIN_BYTES
            && logged.origins.len() < MAX_LOGGED_ORIGINS
            && logged.origins.insert(origin.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_origin_is_logged_once_a_minute() {
        let log = OriginLog::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(log.is_due("https://a.example", at(0)));
        assert!(!log.is_due("https://a.example", at(59)));
        let due = |n: usize| log.is_due(&format!("https://{n}.example"), at(1));
        assert_eq!((0..100).filter(|n| due(*n)).count(), MAX_LOGGED_ORIGINS - 1);
        assert!(log.is_due("https://a.example", at(60)));
        let long = format!("https://{}.example", "x".repeat(MAX_ORIGIN_BYTES));
        assert!(!log.is_due(&long, at(61)));
    }
}
