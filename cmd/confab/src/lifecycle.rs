//! How a role ends: a first signal lets it finish, a deadline or a second signal cuts it off.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// SIGTERM and SIGINT, which mean the same.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs a role until it ends by itself, or until a signal has cancelled `stop` and it has ended within `deadline`.
///
/// # Errors
/// The role's own, and when it was cut off: by the deadline or by a second signal.
pub(crate) async fn run(
    stop: CancellationToken,
    deadline: Duration,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    until_told(async move || signals.next().await, stop, deadline, role).await
}

async fn until_told(
    mut told: impl AsyncFnMut() -> &'static str,
    stop: CancellationToken,
    deadline: Duration,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut role = pin!(role);
    tokio::select! {
        ended = &mut role => return ended,
        signal = told() => info!(signal, "stopping; a second signal cuts off what still runs"),
    }
    stop.cancel();
    tokio::select! {
        ended = role => ended.inspect(|()| info!("stopped")),
        () = tokio::time::sleep(deadline) => {
            bail!("not stopped within {} s: cut off", deadline.as_secs())
        }
        signal = told() => bail!("cut off by a second {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const STOP_TIMEOUT: Duration = Duration::from_secs(20);

    /// What a role comes to that is sent `signals` signals at once.
    async fn told(
        signals: usize,
        role: impl Future<Output = anyhow::Result<()>>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut left = signals;
        let told = async move || {
            if left == 0 {
                pending::<()>().await;
            }
            left -= 1;
            "SIGTERM"
        };
        until_told(told, stop, STOP_TIMEOUT, role)
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_first_signal_lets_a_role_finish() {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let role = async move {
            token.cancelled().await;
            Ok(())
        };
        assert_eq!(told(1, role, stop).await, Ok(()));
    }

    #[tokio::test]
    async fn a_second_signal_cuts_it_off() {
        let error = told(2, pending(), CancellationToken::new()).await;
        assert_eq!(error.unwrap_err(), "cut off by a second SIGTERM");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_cuts_it_off() {
        let error = told(1, pending(), CancellationToken::new()).await;
        assert_eq!(error.unwrap_err(), "not stopped within 20 s: cut off");
    }

    #[tokio::test]
    async fn a_role_that_fails_ends_with_its_error() {
        let role = ready(Err(anyhow::anyhow!("the port is taken")));
        let error = told(0, role, CancellationToken::new()).await;
        assert_eq!(error.unwrap_err(), "the port is taken");
    }
}
