//! A connection's side of its session's record.

use std::time::Instant;

use confab_bus::records::Position;
use confab_protocol::ids::SessionId;
use confab_protocol::signal::PresenceStatus;
use tokio::sync::oneshot;

use super::Records;
use super::table::LeaseHold;
use crate::account::SessionKey;

/// A connection's hold on its session. When it is dropped the session has ended, and may be resumed. All it says is
/// nothing once another connection has taken the session over.
#[derive(Debug)]
pub(crate) struct SessionLease {
    records: Records,
    hold: LeaseHold,
}

impl SessionLease {
    pub(super) const fn new(records: Records, hold: LeaseHold) -> Self {
        Self { records, hold }
    }

    /// The session.
    pub(crate) const fn session(&self) -> SessionId {
        self.hold.session
    }

    /// The hub knows the session by `key`.
    pub(crate) fn opened(&self, key: SessionKey) {
        self.records.lock().opened(self.hold, key);
    }

    /// The client has acknowledged its welcome.
    pub(crate) fn acked(&self) {
        self.records.lock().acked(self.hold);
    }

    /// The user says this of its presence.
    pub(crate) fn presence(&self, status: PresenceStatus) {
        self.records.lock().presence(self.hold, status);
    }

    /// The hub is about to forget the session.
    pub(crate) fn leaving(&self) {
        self.records.lock().leaving(self.hold);
    }

    /// The connection has ended; `positions` are what its client has acknowledged, where that is known: else what was
    /// known before stands.
    pub(crate) fn ended(self, positions: Option<Vec<Position>>) {
        self.end(positions);
    }

    /// The session has ended for good. Comes when that is written.
    pub(crate) fn finished(self) -> oneshot::Receiver<()> {
        let (waits, written) = oneshot::channel();
        let now = Instant::now();
        self.records
            .change(|table| table.finished(self.hold, waits, now));
        self.records.0.wake.notify_one();
        written
    }

    fn end(&self, positions: Option<Vec<Position>>) {
        let now = Instant::now();
        self.records
            .change(|table| table.ended(self.hold, positions, now));
        self.records.0.wake.notify_one();
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        // It has no effect where the session ended otherwise before.
        self.end(None);
    }
}
