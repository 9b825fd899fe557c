use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes that are carried later, each run with its time, in their order.
#[derive(Debug, Default)]
pub(super) struct Late {
    runs: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Late {
    /// What waits at most: who sends more is held up.
    const MAX_BYTES: usize = 16 << 20;

    pub(super) fn push(&mut self, delay: Duration, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.runs
            .push_back((Instant::now() + delay, bytes.to_vec()));
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < Self::MAX_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The next run when it is due; never where there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        match self.runs.front() {
            Some((due, _)) => sleep_until(*due).await,
            None => std::future::pending().await,
        }
        let (_, run) = self
            .runs
            .pop_front()
            .unwrap_or((Instant::now(), Vec::new()));
        self.bytes -= run.len();
        run
    }
}
