//! A gateway's long-lived tasks: one that ends is the gateway's end; all are waited for.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the tasks are waited for at the end.
const END: Duration = Duration::from_secs(5);

/// The tasks, and what stops them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts a task, which runs until the token that it is given.
    pub(crate) fn start<T>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop.clone());
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// The next task to end.
    pub(crate) async fn ended(&mut self) -> &'static str {
        match self.running.join_next().await {
            Some(ended) => ended.unwrap_or("panicked"),
            None => std::future::pending().await,
        }
    }

    /// Stops all tasks and waits for them, for a bounded time.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(END, all).await.is_err() {
            tracing::warn!("tasks were cut off at the end");
        }
    }
}
