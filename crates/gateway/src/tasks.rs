//! The gateway's long-lived tasks: each has a name and the same stop, and the first one that ends is the gateway's error.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long tasks may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What runs behind the server.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts a task, which is given the stop.
    pub(crate) fn spawn<Running: Future + Send + 'static>(
        &mut self,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> Running,
    ) {
        let running = task(self.stop.clone());
        self.set.spawn(async move {
            drop(running.await);
            name
        });
    }

    /// Waits for the first task that ends, and names it.
    pub(crate) async fn ended(&mut self) -> &'static str {
        match self.set.join_next().await {
            Some(ended) => ended.unwrap_or("panicked"),
            None => "all",
        }
    }

    /// Stops all, and waits for them for a bounded time.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
            warn!("tasks were cut off at the end");
        }
    }
}
