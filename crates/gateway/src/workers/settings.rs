//! Commands and queries on their way to workers.

use std::time::Duration;

use super::CommandLimits;
use crate::headings;

/// Commands and queries on their way to workers.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct WorkerClientSettings {
    /// Time that a command or query may take, its retry included.
    #[arg(
        long,
        env = "CONFAB_REQUEST_BUDGET",
        value_name = "MILLISECONDS",
        default_value_t = 5000,
        help_heading = headings::TIMES_HEADING
    )]
    pub request_budget: u64,
    /// Messages to one worker on their way at once, of sends and of read marks each.
    ///
    /// What waits meanwhile goes in the next one.
    #[arg(
        long,
        env = "CONFAB_WORKER_REQUESTS",
        value_name = "NUMBER",
        default_value_t = 4,
        help_heading = headings::QUEUES_HEADING
    )]
    pub worker_requests: usize,
    /// Commands that may wait in this gateway.
    ///
    /// Of one tenant at most half of them, of one user a quarter; beyond, they are refused as OVERLOADED.
    #[arg(
        long,
        env = "CONFAB_QUEUE_COMMANDS",
        value_name = "NUMBER",
        default_value_t = 16_384,
        help_heading = headings::QUEUES_HEADING
    )]
    pub queue_commands: usize,
    /// Bytes of the commands that may wait in this gateway, with the same shares.
    #[arg(
        long,
        env = "CONFAB_QUEUE_BYTES",
        value_name = "BYTES",
        default_value_t = 128 * 1024 * 1024,
        help_heading = headings::QUEUES_HEADING
    )]
    pub queue_bytes: usize,
}

impl WorkerClientSettings {
    /// How long a command or query may take, its retry included.
    pub(crate) const fn budget(&self) -> Duration {
        Duration::from_millis(self.request_budget)
    }

    pub(crate) const fn command_limits(&self) -> CommandLimits {
        CommandLimits {
            budget: self.budget(),
            in_flight: self.worker_requests,
            waiting: self.queue_commands,
            waiting_bytes: self.queue_bytes,
        }
    }
}
