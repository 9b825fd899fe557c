//! Who may come in now: after a gateway's death or a cut its clients come back all at once, and each costs a read of its
//! memberships and a replay. They are let in at a bounded rate, resumes first, and who would wait too long is told when to
//! come again.

use std::sync::{Arc, Mutex, PoisonError};

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::TenantId;
use tokio::time::Instant;

use crate::metrics::ArrivalMetrics;

mod limiter;

use crate::limits::connects::limiter::{ConnectSchedule, ConnectSlot};

/// How many a second a gateway lets in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Sessions that go on.
    pub(crate) resumes: u32,
    /// Sessions that begin.
    pub(crate) fresh: u32,
}

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With a token to resume by.
    Resume,
    /// Without one.
    Fresh,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Fresh => "fresh",
        }
    }
}

/// The gate that every hello goes through. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectLimiter {
    gate: Arc<Mutex<ConnectSchedule>>,
    start: Instant,
    metrics: ArrivalMetrics,
}

impl ConnectLimiter {
    /// A gate where nobody stands yet.
    pub(crate) fn new(rates: Rates, metrics: ArrivalMetrics) -> Self {
        Self {
            gate: Arc::new(Mutex::new(ConnectSchedule::new(rates))),
            start: Instant::now(),
            metrics,
        }
    }

    /// Waits for the turn of one who comes, a few seconds at most. One who goes away meanwhile has had it.
    ///
    /// # Errors
    /// `OVERLOADED` at once when the wait would be too long, with the time to come again.
    pub(crate) async fn admit(&self, kind: Kind, tenant: &TenantId) -> Result<(), Failure> {
        match self.turn(kind, tenant) {
            ConnectSlot::In(wait) => {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                self.metrics.admitted(kind.as_str(), wait);
                Ok(())
            }
            ConnectSlot::Again(after) => {
                self.metrics.refused(kind.as_str());
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                Err(
                    Failure::new(Code::Overloaded, "too many connections begin at this time")
                        .retry_after(after.max(1)),
                )
            }
        }
    }

    fn turn(&self, kind: Kind, tenant: &TenantId) -> ConnectSlot {
        let chance = rand::random::<f64>();
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.arrive(kind, tenant, self.start.elapsed(), chance)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn too_long_wait_is_refused_with_retry_after() {
        let rates = Rates {
            resumes: 1,
            fresh: 1,
        };
        let arrivals = ConnectLimiter::new(rates, ArrivalMetrics::new(&mut Registry::default()));
        let tenant = "t".parse().unwrap();
        let begin = Instant::now();
        for _ in 0..2 {
            arrivals.admit(Kind::Resume, &tenant).await.unwrap();
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        for _ in 0..3 {
            assert!(matches!(
                arrivals.turn(Kind::Resume, &tenant),
                ConnectSlot::In(_)
            ));
        }
        let failure = arrivals.admit(Kind::Fresh, &tenant).await.unwrap_err();
        assert_eq!(failure.code, Code::Overloaded);
        assert!(failure.retry_after_ms.unwrap() > 1000, "{failure:?}");
    }
}
