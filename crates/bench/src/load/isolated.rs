//! A part of the load that keeps the rest of it from nothing.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::Error;

/// A runtime of its own: thousands of sockets that become readable at once would else stand before what the rest of the load waits for,
/// and its lateness would be told as the service's.
#[derive(Debug)]
pub(crate) struct Isolated(Option<Runtime>);

impl Isolated {
    pub(crate) fn new() -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread().enable_all().build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(Error::io("start a runtime"))
    }

    /// Runs something there, and waits for it. What it spawns stays there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let gone = || Error::Failed("a part of the load ended".to_owned());
        let runtime = self.0.as_ref().ok_or_else(gone)?;
        let ended = runtime.spawn(task).await;
        ended.unwrap_or_else(|_panicked| Err(gone()))
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
