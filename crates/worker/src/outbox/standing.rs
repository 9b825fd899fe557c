//! Whether commits may be marked as published now, and forgotten.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use confab_bus::{Acknowledged, Bus, BusError, Link};
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tracing::info;

use super::{Compared, OutboxError};
use crate::conditions::{MARKING, PUBLISHING, outbox_failed};

/// How long a failure counts as the reason of what lingers.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);

/// Whether commits may be marked as published now, and forgotten. Clones share it.
///
/// A server that comes back may have lost what it had acknowledged. New events take the sequences of those, so that marks made before
/// the comparison would hide what lies below them: until then there are none, and the relay publishes once more. The connection of a
/// worker may live through that, where it leads to another server than the stream's: so whatever shows that the stream may be another
/// than it was (an acknowledgement that does not come, or of a sequence that was given before) puts it in doubt as well.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    link: watch::Receiver<Link>,
    compared: watch::Sender<Option<Compared>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    doubted: Notify,
    state: Mutex<State>,
    publishing: Monitor,
    marking: Monitor,
}

#[derive(Debug, Default)]
struct State {
    round: u64,
    /// The highest sequence that was acknowledged in this round.
    top: u64,
    /// Why the stream was last not to be had, with the causes.
    failure: Option<(Instant, String)>,
}

impl Standing {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self {
            link: bus.connection(),
            compared: watch::Sender::new(None),
            shared: Arc::new(Shared {
                doubted: Notify::new(),
                state: Mutex::default(),
                publishing: Monitor::new(PUBLISHING),
                marking: Monitor::new(MARKING),
            }),
        }
    }

    /// The stream, where it was compared on the connection that is, and is not in doubt.
    pub(crate) fn now(&self) -> Option<Compared> {
        let link = *self.link.borrow();
        let compared = *self.compared.borrow();
        compared.filter(|compared| link.connected && link.epoch == compared.epoch)
    }

    /// The stream has what is marked as published into it, as was found on the connection of this epoch.
    pub(super) fn holds(&self, created: OffsetDateTime, epoch: u64) {
        let is_known = |known: &Compared| known.created == created && known.epoch == epoch;
        if self.compared.borrow().as_ref().is_some_and(is_known) {
            return;
        }
        let round = {
            let mut state = self.lock();
            state.round += 1;
            state.top = 0;
            state.round
        };
        self.compared.send_replace(Some(Compared {
            created,
            epoch,
            round,
        }));
    }

    /// What was marked into the stream is not there, or nobody knows: nothing is marked until it was compared.
    pub(super) fn forget(&self) {
        self.compared.send_replace(None);
    }

    /// Something shows that the stream may not be what it was: it is compared at once.
    pub(super) fn doubt(&self, stream: Compared, why: &'static str) {
        let was_sure = self.compared.send_if_modified(|compared| {
            let is_it = *compared == Some(stream);
            if is_it {
                *compared = None;
            }
            is_it
        });
        if was_sure {
            info!(why, "the stream is compared with what was published");
            self.shared.doubted.notify_one();
        }
    }

    /// JetStream has acknowledged an event.
    pub(super) fn published(&self) {
        self.shared.publishing.succeeded();
    }

    /// JetStream did not take an event. While NATS is away that is told instead, once.
    pub(super) fn not_published(&self, error: &BusError) {
        self.failed(error);
        if self.link.borrow().connected {
            self.shared.publishing.failed(error);
        }
    }

    /// Nothing waits to be published or marked: what failed before holds again, also where no event comes by that shows it.
    pub(super) fn nothing_waits(&self) {
        self.shared.publishing.succeeded();
        self.shared.marking.succeeded();
    }

    /// Whether events were not taken, or could not be marked, and the log may say so.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.shared.publishing.is_failing() || self.shared.marking.is_failing()
    }

    /// Commits were marked as published.
    pub(super) fn marked(&self) {
        self.shared.marking.succeeded();
    }

    /// Commits could not be marked as published.
    pub(super) fn not_marked(&self, bus: &Bus, error: &OutboxError) {
        outbox_failed(bus, &self.shared.marking, error);
    }

    /// Waits until the stream is in doubt.
    pub(super) async fn doubted(&self) {
        self.shared.doubted.notified().await;
    }

    /// The highest sequence acknowledged so far: what is handed over now gets a higher one.
    pub(super) fn top(&self) -> u64 {
        self.lock().top
    }

    /// Takes note of an acknowledgement of what was handed over when the highest sequence was `before`. Says whether the stream can be
    /// the one it was: a stream that lost its tail gives the same sequences again.
    pub(super) fn acknowledged(&self, stream: Compared, before: u64, ack: Acknowledged) -> bool {
        let mut state = self.lock();
        if state.round != stream.round {
            return false;
        }
        state.top = state.top.max(ack.sequence);
        ack.duplicate || ack.sequence > before
    }

    /// An event was not taken by the stream, or the stream could not be asked.
    pub(super) fn failed(&self, error: &(dyn Error + 'static)) {
        self.lock().failure = Some((Instant::now(), chain(error).to_string()));
    }

    /// Why the stream was not to be had lately, as far as this worker has tried.
    pub(super) fn lately_failed(&self) -> Option<String> {
        let state = self.lock();
        let (at, text) = state.failure.as_ref()?;
        (at.elapsed() < FAILURE_MEMORY).then(|| text.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
