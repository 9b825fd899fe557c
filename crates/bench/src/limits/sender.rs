//! One sender of a measurement, apart from the others: what it did in a time, and what processors spent on it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Error;
use crate::load::{Latencies, Latency};
use crate::processes;

/// What a part does here, when it does nothing else.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartMeasurement {
    /// Operations a second.
    pub(crate) per_second: f64,
    /// How long they took, in milliseconds; of a batch, the whole.
    pub(crate) latency: Latency,
    /// Processors' time of the server's processes for each, in microseconds.
    pub(crate) server_micros: f64,
    /// Processors' time of the client for each, in microseconds.
    pub(crate) client_micros: f64,
}

/// The server of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MeasuredServer {
    /// A process.
    Nats(u32),
    /// The first process of a Postgres.
    Postgres(u32),
}

impl MeasuredServer {
    /// Seconds of processor time that it has used.
    fn used(self) -> f64 {
        match self {
            Self::Nats(pid) => processes::processor(pid),
            Self::Postgres(pid) => processes::processor_of_family(pid),
        }
    }
}

/// When is measured: the same for all senders of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    from: Instant,
    until: Instant,
    /// Every sender waits here once it is measured: one that stopped earlier would be missed by those that still measure.
    all_measured: Arc<Barrier>,
}

/// How long everything runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a sender goes on for the others once it is measured: one of them may have failed.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(10);

impl Window {
    /// From soon on, for so long, of one sender.
    pub(crate) fn of(length: Duration) -> Self {
        Self::of_senders(1, length)
    }

    /// The same of so many.
    pub(crate) fn of_senders(senders: usize, length: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        Self {
            from,
            until: from + length,
            all_measured: Arc::new(Barrier::new(senders)),
        }
    }
}

/// Runs a sender on a thread of its own, so that its processor's time is known apart from that of others.
pub(crate) async fn isolated<T, F>(sender: impl FnOnce() -> F + Send + 'static) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
    T: Send + 'static,
{
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(Error::io("start a runtime"))?;
        runtime.block_on(sender())
    };
    let ended = tokio::task::spawn_blocking(run).await;
    ended.map_err(Error::panicked)?
}

/// Runs what goes on for ever, on the thread that [`isolated`] gave, and measures it in the window; each that is recorded in `taken`
/// stands for `operations`.
pub(crate) async fn measure<F>(
    work: F,
    taken: &Latencies,
    operations: f64,
    server: MeasuredServer,
    window: Window,
) -> Result<PartMeasurement, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let watch = async {
        sleep_until(window.from).await;
        let (own, servers, began) = (processes::own_thread(), server.used(), Instant::now());
        taken.take();
        sleep_until(window.until).await;
        let latency = taken.take();
        let done = (latency.count as f64 * operations).max(1.0);
        let each = |seconds: f64| seconds * 1e6 / done;
        let part = PartMeasurement {
            per_second: done / began.elapsed().as_secs_f64(),
            server_micros: each(server.used() - servers),
            client_micros: each(processes::own_thread() - own),
            latency,
        };
        // Whether the others were measured shows in what they give.
        let _late = timeout(OTHERS_TIMEOUT, window.all_measured.wait()).await;
        part
    };
    tokio::select! {
        // First: once all are measured the others stop, and work that misses them fails.
        biased;
        part = watch => Ok(part),
        ended = work => Err(ended.err().unwrap_or_else(|| Error::Failed("what is measured ended early".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn isolated_sender_is_measured_without_other_work() {
        let window = Window::of(Duration::from_millis(500));
        let until = window.until;
        let idle = isolated(move || async move {
            let taken = Latencies::default();
            let work = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    taken.record(Duration::from_millis(5));
                }
            };
            measure(work, &taken, 2.0, MeasuredServer::Nats(0), window).await
        });
        let busy = isolated(move || async move {
            while Instant::now() < until {
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let (idle, busy) = tokio::join!(idle, busy);
        let (part, ()) = (idle.unwrap(), busy.unwrap());
        assert!(
            part.per_second > 10.0 && part.client_micros < 1000.0,
            "{part:?}"
        );
        assert_eq!(part.server_micros, 0.0);
    }

    #[tokio::test]
    async fn measured_side_goes_on_until_others_are_measured() {
        let window = Window::of_senders(2, Duration::from_millis(100));
        let (asked, mut questions) = tokio::sync::mpsc::channel::<()>(1);
        let answering = {
            let window = window.clone();
            async move {
                let taken = Latencies::default();
                let work = async {
                    while questions.recv().await.is_some() {
                        taken.record(Duration::ZERO);
                    }
                    Ok(())
                };
                measure(work, &taken, 1.0, MeasuredServer::Nats(0), window).await
            }
        };
        let mut late = window.clone();
        late.until += Duration::from_millis(300);
        let asking = async move {
            let taken = Latencies::default();
            let work = async {
                while asked.send(()).await.is_ok() {
                    taken.record(Duration::ZERO);
                    tokio::task::yield_now().await;
                }
                Err(Error::Failed("nobody answers".to_owned()))
            };
            measure(work, &taken, 1.0, MeasuredServer::Nats(0), late).await
        };
        let (answering, asking) = tokio::join!(answering, asking);
        answering.and(asking).unwrap();
    }
}
