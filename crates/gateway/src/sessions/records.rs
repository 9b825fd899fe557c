//! Sessions that outlive their connections: the records of those that are live here or ended here, resume tokens,
//! take-overs, and the fencing of whoever lost a session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confab_auth::Caller;
use confab_bus::records::{Bucket, Found, Ownership, Position, Record, TokenHash};
use confab_bus::{Bus, Gateways};
use confab_protocol::condition::Monitor;
use confab_protocol::fair::Owner;
use confab_protocol::ids::SessionId;
use confab_protocol::signal::PresenceStatus;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::account::SessionKey;
use crate::conditions::RECORDS_CONDITION;
use crate::delivery::send_queue::SendQueue;
use crate::hub::actor::HubHandle;
use crate::metrics::RecordMetrics;

mod answers;
mod decision;
mod known;
mod lease;
mod ration;
mod table;
mod takeover;
#[cfg(test)]
mod testing;
mod token;
mod writer;

pub(crate) use crate::sessions::records::lease::SessionLease;
pub(crate) use known::KnownSession;
use ration::Rations;
use table::{LeaseHold, RecordLifetimes, Replaced, Table};
pub(crate) use takeover::{Resumed, TakenOver};
pub(crate) use token::Token;

/// The records of this gateway. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Records(Arc<RecordsState>);

#[derive(Debug)]
struct RecordsState {
    bus: Bus,
    bucket: Bucket,
    gateways: Gateways,
    table: Mutex<Table>,
    rations: Mutex<Rations>,
    /// Something is to be written sooner than was known.
    wake: Notify,
    /// The bucket may be missing.
    missing: Notify,
    /// A write has ended.
    written: Notify,
    window: Duration,
    metrics: RecordMetrics,
    writing: Monitor,
    /// When a write failed, where none went well since: that the bucket is there is no sign then that it takes records.
    write_failed: Mutex<Option<Instant>>,
}

/// How long records are kept, and how much of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How long after its connection's end a session may be resumed.
    pub(crate) window: Duration,
    /// Of all gateways' records, in bytes.
    pub(crate) max_bytes: i64,
}

/// A session that begins.
pub(crate) struct Begun {
    pub(crate) lease: SessionLease,
    pub(crate) token: Token,
    /// Comes when the record stands, and the token is good.
    pub(crate) stands: oneshot::Receiver<()>,
}

impl Records {
    /// The records of a gateway that begins.
    pub(crate) fn new(
        bus: Bus,
        gateways: Gateways,
        bounds: Bounds,
        metrics: RecordMetrics,
    ) -> Self {
        let Bounds { window, max_bytes } = bounds;
        let times = RecordLifetimes {
            window,
            period: window / 3,
        };
        Self(Arc::new(RecordsState {
            bucket: Bucket::new(bus.clone(), window).with_max_bytes(max_bytes),
            bus,
            gateways,
            table: Mutex::new(Table::new(times)),
            rations: Mutex::new(Rations::new(Instant::now())),
            wake: Notify::new(),
            missing: Notify::new(),
            written: Notify::new(),
            window,
            metrics,
            writing: Monitor::new(RECORDS_CONDITION),
            write_failed: Mutex::default(),
        }))
    }

    /// How long after its connection's end a session may be resumed.
    pub(crate) fn window(&self) -> Duration {
        self.0.window
    }

    /// Begins a session of the connection that `live` names: its record is on its way.
    pub(crate) fn begin(
        &self,
        session: SessionId,
        caller: &Caller,
        positions: Vec<Position>,
        live: (Arc<SendQueue>, SessionKey),
    ) -> Begun {
        let token = Token::new(session);
        let owner = Ownership {
            generation: 1,
            take_over: Uuid::now_v7(),
        };
        let record = self.first_record(caller, token.hash(), owner, positions);
        let (waits, stands) = oneshot::channel();
        self.change(|table| table.begin(session, record, live, waits, Instant::now()));
        self.0.wake.notify_one();
        Begun {
            lease: self.lease(session, owner),
            token,
            stands,
        }
    }

    fn first_record(
        &self,
        caller: &Caller,
        token: TokenHash,
        owner: Ownership,
        positions: Vec<Position>,
    ) -> Record {
        Record {
            tenant: caller.tenant.clone(),
            user: caller.user.clone(),
            device: caller.device.clone(),
            login_session: caller.login_session.clone(),
            token,
            former: None,
            owner,
            gateway: self.0.gateways.id(),
            presence: PresenceStatus::Online,
            positions,
        }
    }

    /// Writes what is not written yet, for at most `patience`: the gateway ends.
    pub(crate) async fn flush(&self, patience: Duration) {
        if !self.0.bus.is_connected() {
            warn!("NATS is away: the last positions of sessions are not kept");
            return;
        }
        self.change(|table| table.write_live(Instant::now()));
        self.0.wake.notify_one();
        let settled = async {
            loop {
                let written = self.0.written.notified();
                if self.lock().unsettled() == 0 {
                    return;
                }
                written.await;
            }
        };
        if tokio::time::timeout(patience, settled).await.is_err() {
            let left = self.lock().unsettled();
            warn!(left, "not every session's last position was kept in time");
        }
    }

    fn lease(&self, session: SessionId, owner: Ownership) -> SessionLease {
        let take_over = owner.take_over;
        SessionLease::new(self.clone(), LeaseHold { session, take_over })
    }

    /// Changes the table, and counts what it holds then.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.lock();
        let changed = change(&mut table);
        let (live, ended) = table.counts();
        self.0.metrics.held(live, ended);
        changed
    }

    /// Closes the connections that have lost their sessions.
    fn fenced(&self, replaced: Replaced) {
        let fenced = replaced.close();
        self.0.metrics.fenced(fenced);
    }

    /// How long nothing may be written for the user of a record; none where it may now.
    fn rationed(&self, owner: &Owner) -> Option<Duration> {
        let rations = self.0.rations.lock();
        let rations = rations.unwrap_or_else(PoisonError::into_inner);
        rations.wait(owner, Instant::now())
    }

    /// So many bytes were written for the user of a record.
    fn charge(&self, owner: &Owner, bytes: usize) {
        let rations = self.0.rations.lock();
        let mut rations = rations.unwrap_or_else(PoisonError::into_inner);
        rations.charge(owner, bytes, Instant::now());
        self.0.metrics.bytes(bytes);
    }

    /// Counts what cannot be read in the bucket.
    fn note(&self, found: &Found) {
        if matches!(found, Found::Baseless { .. }) {
            self.0.metrics.baseless();
        }
        if matches!(found, Found::Unreadable { deleted: false, .. }) && self.0.metrics.bad_record()
        {
            warn!(
                "what the bucket of sessions holds is no record of ours; such are counted and written over"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owner_of(record: &Record) -> Owner {
    Owner {
        tenant: record.tenant.clone(),
        user: record.user.clone(),
    }
}

/// Writes records, and answers what other gateways ask about them, until `stop`.
pub(crate) async fn run(records: Records, hub: HubHandle, stop: CancellationToken) {
    let both = Box::pin(async {
        tokio::join!(records.answer(), records.write_all(&hub));
    });
    stop.run_until_cancelled(both).await;
    debug!("no record is written any more");
}
