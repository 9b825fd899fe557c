//! A socket: its times, and what may wait for it.

use std::time::Duration;

use super::SocketLimits;
use crate::headings;

/// A socket: its times, and what may wait for it.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct SocketSettings {
    /// Time within which a new socket must say hello.
    #[arg(
        long,
        env = "CONFAB_HELLO_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5,
        help_heading = headings::TIMES_HEADING
    )]
    pub hello_timeout: u64,
    /// Time between the pings of a socket.
    #[arg(
        long,
        env = "CONFAB_HEARTBEAT",
        value_name = "SECONDS",
        default_value_t = 25,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = headings::TIMES_HEADING
    )]
    pub heartbeat: u64,
    /// Time that a client may take nothing while something waits for it.
    #[arg(
        long,
        env = "CONFAB_STALL_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = headings::TIMES_HEADING
    )]
    pub stall_timeout: u64,
    /// Bytes of events that may wait for one socket.
    ///
    /// Beyond, its session catches up from the replay window, at the pace of its client.
    #[arg(
        long,
        env = "CONFAB_OUTBOX_BYTES",
        value_name = "BYTES",
        default_value_t = 256 * 1024,
        help_heading = headings::QUEUES_HEADING
    )]
    pub outbox_bytes: usize,
}

impl SocketSettings {
    /// Times and bounds of a socket, where another gateway lets so many sessions a second go on, and a drain takes so long.
    pub(crate) const fn socket_limits(&self, resume_rate: u32, drain: Duration) -> SocketLimits {
        SocketLimits {
            hello: Duration::from_secs(self.hello_timeout),
            heartbeat: Duration::from_secs(self.heartbeat),
            stall: Duration::from_secs(self.stall_timeout),
            outbox_bytes: self.outbox_bytes,
            open: Duration::from_secs(10),
            drain,
            resume_rate,
        }
    }
}
