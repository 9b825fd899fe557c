//! Sessions: how long they may be resumed, and the size of their bucket.

use std::time::Duration;

use super::records;
use crate::headings;

/// Sessions: how long they may be resumed, and the size of their bucket.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct SessionSettings {
    /// Time within which a client that lost its connection may resume its session.
    ///
    /// `CONFAB_EVENTS_MAX_AGE` should be five minutes more; with less, a gateway that started lately asks workers for what it does not have.
    #[arg(
        long,
        env = "CONFAB_RESUME_WINDOW",
        value_name = "SECONDS",
        default_value_t = 900,
        value_parser = clap::value_parser!(u64).range(10..),
        help_heading = headings::RESUMING_HEADING
    )]
    pub resume_window: u64,
    /// Bytes of all records of sessions in NATS.
    ///
    /// Where they are nine tenths of that, new sessions cannot be resumed. A bucket that has a bound already keeps it.
    #[arg(
        long,
        env = "CONFAB_SESSIONS_MAX_BYTES",
        value_name = "BYTES",
        default_value_t = 512 << 20,
        value_parser = clap::value_parser!(i64).range(1 << 20..),
        help_heading = headings::RESUMING_HEADING
    )]
    pub sessions_max_bytes: i64,
}

/// By how many seconds the replay window reaches further back than a session may be resumed.
const WINDOW_MARGIN_SECONDS: u64 = 5 * 60;
/// How much longer than twice the resume window revocations of sessions are kept, in seconds.
const REVOCATION_MARGIN_SECONDS: u64 = 600;

impl SessionSettings {
    /// How old the events of the replay window may be: who resumes at the end of its time still finds all it missed.
    pub(crate) const fn window_age(&self) -> Duration {
        Duration::from_secs(self.resume_window + WINDOW_MARGIN_SECONDS)
    }

    /// How many seconds revocations of sessions are kept: until none can be resumed that was live at a gateway which has not heard of it, and
    /// a margin.
    pub(crate) const fn revocation_seconds(&self) -> u64 {
        let resumable = self.resume_window.saturating_mul(2);
        resumable + REVOCATION_MARGIN_SECONDS
    }

    /// How long sessions may be resumed, and how much is kept for that.
    pub(crate) const fn records(&self) -> records::Bounds {
        records::Bounds {
            window: Duration::from_secs(self.resume_window),
            max_bytes: self.sessions_max_bytes,
        }
    }
}
