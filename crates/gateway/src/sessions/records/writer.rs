//! Writes records: when they changed, again before they expire, and all of them whenever the bucket may have lost some.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confab_bus::BusError;
use confab_bus::records::Put;
use confab_protocol::chain::chain;
use confab_protocol::ids::SessionId;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info};

use super::Records;
use super::decision::{WriteDecision, decide};
use super::table::{DueWrite, LeaseHold, Snapshot};
use crate::account::SessionKey;
use crate::hub::actor::HubHandle;

/// Writes on their way at once.
const MAX_CONCURRENT_WRITES: usize = 256;
/// How often one write that is refused is decided anew.
const MAX_WRITE_ATTEMPTS: usize = 4;
/// How soon a write that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How soon one is that the bucket has no room for.
const FULL_RETRY: Duration = Duration::from_secs(10);
/// Deletions on their way at once.
const MAX_DELETING: usize = 16;
/// How long a write that failed counts as a sign that others would: longer than it takes to fail once more.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);
/// How often it is looked whether the bucket is still the same.
const BUCKET_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// What became of a question to the hub for a session's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteOutcome {
    /// There was none.
    Not,
    /// There was to be one.
    GivenUp,
    InTime,
    Late,
}

/// Whether the hub is asked for what clients have: when it was late, by one write at a time, so that it holds up no others.
#[derive(Debug, Default)]
struct Positions {
    asking: usize,
    is_late: bool,
}

impl Positions {
    /// Whether one more may ask; then it does.
    const fn may_ask(&mut self) -> bool {
        let may = !self.is_late || self.asking == 0;
        if may {
            self.asking += 1;
        }
        may
    }

    const fn answered(&mut self, asked: WriteOutcome) {
        match asked {
            WriteOutcome::Not => return,
            WriteOutcome::GivenUp => {}
            WriteOutcome::InTime => self.is_late = false,
            WriteOutcome::Late => self.is_late = true,
        }
        self.asking = self.asking.saturating_sub(1);
    }
}

impl Records {
    /// Writes for ever.
    pub(super) async fn write_all(&self, hub: &HubHandle) {
        let mut link = self.0.bus.connection();
        let mut epoch = link.borrow().epoch;
        let mut period = interval(BUCKET_CHECK_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = FuturesUnordered::new();
        let mut looking = FuturesUnordered::new();
        let mut deletions = FuturesUnordered::new();
        let (mut made, mut positions) = (None, Positions::default());
        loop {
            let connected = link.borrow().connected;
            while connected
                && deletions.len() < MAX_DELETING
                && let Some((session, revision)) = self.lock().take_dropped()
            {
                deletions.push(self.delete(session, revision));
            }
            let may_write = connected && writes.len() < MAX_CONCURRENT_WRITES;
            let due = self.lock().next_due();
            tokio::select! {
                Some(asked) = writes.next() => positions.answered(asked),
                Some(()) = deletions.next() => {}
                Some(found) = looking.next() => made = self.bucket_is(made, found),
                () = until(due), if may_write => {
                    while writes.len() < MAX_CONCURRENT_WRITES
                        && let Some(due) = self.change(|table| table.take_due(Instant::now()))
                    {
                        let key = due.key.filter(|_| positions.may_ask());
                        writes.push(self.write(hub, due, key));
                    }
                }
                () = self.0.wake.notified() => {}
                Ok(()) = link.changed() => {
                    let link = *link.borrow_and_update();
                    if link.connected && link.epoch != epoch {
                        epoch = link.epoch;
                        self.0.bucket.bases_lost();
                        self.change(|table| table.sweep(Instant::now()));
                        looking = [self.look_at_bucket()].into_iter().collect();
                    }
                }
                _ = period.tick(), if looking.is_empty() => looking.push(self.look_at_bucket()),
                () = self.0.missing.notified(), if looking.is_empty() => looking.push(self.look_at_bucket()),
            }
        }
    }

    fn write_failed(&self) -> MutexGuard<'_, Option<Instant>> {
        let failed = self.0.write_failed.lock();
        failed.unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at_bucket(&self) -> BoxFuture<'_, Result<OffsetDateTime, BusError>> {
        Box::pin(self.0.bucket.provision())
    }

    /// The bucket was looked at: where it is another, all records are written again.
    fn bucket_is(
        &self,
        before: Option<OffsetDateTime>,
        found: Result<OffsetDateTime, BusError>,
    ) -> Option<OffsetDateTime> {
        let made = match found {
            Ok(made) => {
                let failed = *self.write_failed();
                if failed.is_none_or(|at| at.elapsed() >= FAILURE_MEMORY) {
                    self.0.writing.succeeded();
                }
                made
            }
            Err(error) => {
                self.0.bus.failed(&self.0.writing, &error);
                return before;
            }
        };
        if before.is_some_and(|before| before != made) {
            info!("the bucket of sessions is another: its records are written again");
            self.0.bucket.bases_lost();
            self.change(|table| table.sweep(Instant::now()));
        }
        Some(made)
    }

    /// Writes a record, behind what the hub says of its session where it is to be asked; says what became of that.
    async fn write(&self, hub: &HubHandle, due: DueWrite, key: Option<SessionKey>) -> WriteOutcome {
        let mut asked = if key.is_some() {
            WriteOutcome::GivenUp
        } else {
            WriteOutcome::Not
        };
        let hold = due.hold;
        let wait = due.owner.as_ref().and_then(|owner| self.rationed(owner));
        if let Some(wait) = wait {
            self.lock().put_off(hold, Instant::now() + wait);
            self.0.metrics.written("rationed");
            return asked;
        }
        if let Some(key) = key {
            match hub.positions(key).await {
                Some(positions) => {
                    self.lock().positions(hold, key, positions);
                    asked = WriteOutcome::InTime;
                }
                // What was known before is written, so that the record does not expire.
                None => asked = WriteOutcome::Late,
            }
        }
        let snapshot = self.lock().snapshot(hold);
        let result = match snapshot {
            Some(snapshot) => self.put(hold, snapshot).await,
            None => "fenced",
        };
        self.0.metrics.written(result);
        self.0.written.notify_waiters();
        asked
    }

    /// Deletes what is kept no more; what is left of it by a failure expires.
    async fn delete(&self, session: SessionId, revision: u64) {
        let deleted = self.0.bucket.delete(session, revision).await;
        if let Err(error) = &deleted {
            debug!(error = %chain(error), session.id = %session, "a session's record was not deleted");
        }
        self.0.metrics.deleted(deleted.is_ok());
    }

    /// Writes it; says what became of that.
    async fn put(&self, hold: LeaseHold, snapshot: Snapshot) -> &'static str {
        let mut revision = snapshot.revision;
        for _ in 0..MAX_WRITE_ATTEMPTS {
            match self
                .0
                .bucket
                .put(hold.session, &snapshot.entry, revision)
                .await
            {
                Put::Stored { revision, bytes } => {
                    *self.write_failed() = None;
                    self.0.writing.succeeded();
                    self.charge(&snapshot.user, bytes);
                    let (now, chance) = (Instant::now(), rand::random());
                    self.change(|table| table.stored(hold, revision, now, chance));
                    return "stored";
                }
                Put::Refused => match self.decide(hold.session, &snapshot).await {
                    Some(WriteDecision::Fenced) => {
                        info!(session.id = %hold.session, "a session was taken over elsewhere, or ended");
                        let replaced = self.change(|table| table.lost(hold));
                        self.fenced(replaced);
                        return "fenced";
                    }
                    Some(WriteDecision::WriteOver(stands)) => revision = stands,
                    Some(WriteDecision::Create) => revision = 0,
                    None => break,
                },
                Put::Full => {
                    let again = Instant::now() + FULL_RETRY.mul_f64(0.5 + rand::random::<f64>());
                    self.lock().put_off(hold, again);
                    return "full";
                }
                Put::Unknown(error) => {
                    if matches!(error, BusError::NoStream) {
                        self.0.missing.notify_one();
                    }
                    *self.write_failed() = Some(Instant::now());
                    self.0.bus.failed(&self.0.writing, &error);
                    debug!(error = %chain(&error), session.id = %hold.session, "a session's record was not written");
                    break;
                }
            }
        }
        let again = Instant::now() + RETRY_DELAY.mul_f64(0.5 + rand::random::<f64>());
        self.lock().put_off(hold, again);
        "failed"
    }

    /// What a refused write means; none when the leader cannot be asked.
    async fn decide(&self, session: SessionId, snapshot: &Snapshot) -> Option<WriteDecision> {
        let found = self.read(session).await.ok()?;
        self.note(&found);
        Some(decide(snapshot.owner, self.0.gateways.id(), &found))
    }
}

/// Comes when something is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_hub_is_asked_by_one_write() {
        let mut positions = Positions::default();
        assert!((0..3).all(|_| positions.may_ask()));
        positions.answered(WriteOutcome::Late);
        assert!(!positions.may_ask(), "two still ask");
        positions.answered(WriteOutcome::Not);
        positions.answered(WriteOutcome::Late);
        positions.answered(WriteOutcome::Late);
        assert!(positions.may_ask());
        assert!(!positions.may_ask());
        positions.answered(WriteOutcome::InTime);
        assert!((0..3).all(|_| positions.may_ask()));
    }
}
