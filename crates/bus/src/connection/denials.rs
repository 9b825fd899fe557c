//! Subscriptions that the server does not permit. It says so on the connection, and the library tells nothing to who subscribed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Event, ServerError};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::Bus;
use crate::error::BusError;

/// Time that the server may take to handle what was subscribed; behind that it is taken to permit it.
const ECHO_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that the library may take to hand on an error that came before the echo.
const HANDOVER_TIME: Duration = Duration::from_millis(60);
/// Subjects that are remembered.
const MAX_REMEMBERED: usize = 64;

/// The subjects that the server did not let this process subscribe, and when it said so last.
#[derive(Debug, Clone, Default)]
pub(super) struct Denials(Arc<Mutex<HashMap<String, Instant>>>);

impl Denials {
    /// Notes an event of the connection where it is about a subscription.
    pub(super) fn note(&self, event: &Event) {
        if let Event::ServerError(ServerError::Other(text)) = event
            && let Some(subject) = denied(text)
        {
            self.add(subject, Instant::now());
        }
    }

    fn add(&self, subject: &str, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_REMEMBERED {
            let oldest = all.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                all.remove(&oldest);
            }
        }
        all.insert(subject.to_owned(), now);
    }

    /// Returns true if it was said since then.
    fn has(&self, subject: &str, since: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(subject).is_some_and(|at| *at >= since)
    }
}

/// The subject of `Permissions Violation for Subscription to "subject" …`, as nats-server writes it.
fn denied(text: &str) -> Option<&str> {
    let (_, what) = text.split_once("ermissions Violation for Subscription to ")?;
    what.split('"').nth(1)
}

impl Bus {
    /// Waits until the server has handled what this process subscribed `since` then.
    ///
    /// # Errors
    /// [`BusError::Forbidden`] with the first of `subjects` that the server does not permit; otherwise when the connection is closed.
    pub(crate) async fn may_subscribe(
        &self,
        subjects: &[&str],
        since: Instant,
    ) -> Result<(), BusError> {
        let inbox = self.client.new_inbox();
        let echo = self.client.subscribe(inbox.clone()).await;
        let mut echo = echo.map_err(BusError::nats("subscribe an inbox"))?;
        let sent = self.client.publish(inbox, Bytes::new()).await;
        sent.map_err(BusError::nats("publish to an inbox"))?;
        // The server handles one thing after the other: before this comes back it has said what it forbids.
        let came = timeout(ECHO_TIMEOUT, echo.next()).await;
        if came.is_ok() {
            sleep(HANDOVER_TIME).await;
        }
        let forbidden = subjects
            .iter()
            .find(|subject| self.denials.has(subject, since));
        match forbidden {
            Some(subject) => Err(BusError::Forbidden((*subject).to_owned())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_read_and_bounded() {
        let denials = Denials::default();
        let queue =
            "Permissions Violation for Subscription to \"confab.v2.command\" using queue \"q\"";
        let began = Instant::now();
        for text in [queue, "Permissions Violation for Publish to \"other\""] {
            denials.note(&Event::ServerError(ServerError::Other(text.to_owned())));
        }
        assert!(denials.has("confab.v2.command", began));
        assert!(!denials.has("other", began));
        let later = began + Duration::from_secs(60);
        assert!(!denials.has("confab.v2.command", later));
        for number in 0..MAX_REMEMBERED {
            denials.add(&number.to_string(), later);
        }
        assert!(!denials.has("confab.v2.command", began), "the oldest goes");
        assert!(denials.has("0", later));
    }
}
