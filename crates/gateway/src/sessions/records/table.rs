//! The records that this gateway holds: of every live session, and of those that ended and may be resumed. No IO: it says
//! what is to be written when, and takes what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::records::{Answer, Entry, Fence, Ownership, Position, Record, TokenHash};
use confab_protocol::ids::SessionId;
use confab_protocol::signal::PresenceStatus;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::token::is_same;
use crate::account::SessionKey;
use crate::delivery::send_queue::SendQueue;

mod dropped;
mod ended;
mod taking;
mod writes;

use dropped::Dropped;
use ended::EndedSessions;
use taking::Takings;
pub(crate) use writes::{DueWrite, Snapshot};

/// The records of this gateway.
#[derive(Debug)]
pub(crate) struct Table {
    held: FxHashMap<SessionId, Box<HeldRecord>>,
    takings: Takings,
    ended: EndedSessions,
    due: BTreeSet<(Instant, SessionId)>,
    /// Records that changed since they were last stored.
    unsettled: usize,
    dropped: Dropped,
    times: RecordLifetimes,
}

/// For how long what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordLifetimes {
    /// How long after its end a session may be resumed.
    pub(crate) window: Duration,
    /// How often a live session's record is put again.
    pub(crate) period: Duration,
}

/// A session's record here.
#[derive(Debug)]
struct HeldRecord {
    record: Record,
    /// Under which it stands in the bucket, as far as known; 0 for none.
    revision: u64,
    state: RecordState,
    due: Instant,
    writing: bool,
    /// It changed, or must be written once more, since the write that is on its way began.
    again: bool,
    settled: bool,
    /// Who waits for the write.
    waits: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
enum RecordState {
    /// A connection serves it.
    Live {
        send_queue: Arc<SendQueue>,
        /// What the hub knows it by, while it does.
        key: Option<SessionKey>,
    },
    /// It may be resumed.
    Ended(Instant),
    /// It ended for good, and that is to be written.
    Finished(Instant),
}

impl RecordState {
    /// When nothing needs it any more. What says that a session ended for good is kept for as long as the bucket keeps
    /// what says otherwise.
    fn expires(&self, times: RecordLifetimes) -> Option<Instant> {
        match self {
            Self::Live { .. } => None,
            Self::Ended(at) => Some(*at + times.window),
            Self::Finished(at) => Some(*at + times.window + times.period * 2),
        }
    }
}

/// A connection's hold on a session: void when another has taken the session over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseHold {
    pub(crate) session: SessionId,
    pub(crate) take_over: Uuid,
}

/// Connections that must close: their sessions are others' now.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Replaced(Vec<Arc<SendQueue>>);

impl Replaced {
    /// Closes them; says how many there were. To be called without the table's lock: a send queue has its own.
    pub(crate) fn close(self) -> usize {
        for send_queue in &self.0 {
            send_queue.close(confab_protocol::error::Code::SessionReplaced);
        }
        self.0.len()
    }
}

impl Table {
    pub(crate) fn new(times: RecordLifetimes) -> Self {
        Self {
            held: FxHashMap::default(),
            takings: Takings::default(),
            ended: EndedSessions::default(),
            due: BTreeSet::new(),
            unsettled: 0,
            dropped: Dropped::default(),
            times,
        }
    }

    /// How many sessions there are that live, or ended for good and are not written, and how many that may be resumed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let ended = self.ended.len();
        (self.held.len() - ended, ended)
    }

    /// A session that begins: its record is to be written at once, and `waits` is told when it stands.
    pub(crate) fn begin(
        &mut self,
        session: SessionId,
        record: Record,
        live: (Arc<SendQueue>, SessionKey),
        waits: oneshot::Sender<()>,
        now: Instant,
    ) {
        let (send_queue, key) = live;
        let key = Some(key);
        let held = HeldRecord::new(record, RecordState::Live { send_queue, key }, now);
        let waits = Some(waits);
        self.insert(session, HeldRecord { waits, ..held });
        self.touch(session, now);
    }

    /// A take-over begins: it is known here before anyone else can know of it.
    pub(crate) fn taking(&mut self, session: SessionId, owner: Ownership, good: [TokenHash; 2]) {
        self.takings.begin(session, owner, good);
    }

    /// A take-over failed.
    pub(crate) fn not_taken(&mut self, hold: LeaseHold) {
        self.takings.end(hold);
    }

    /// A take-over stands in the bucket under `revision`: the session is served by `send_queue` here. None when the session is
    /// another's already.
    pub(crate) fn taken(
        &mut self,
        session: SessionId,
        record: Record,
        revision: u64,
        send_queue: Arc<SendQueue>,
        next: Instant,
    ) -> Option<Replaced> {
        let take_over = record.owner.take_over;
        let is_lost = !self.takings.end(LeaseHold { session, take_over });
        let held = self.held.get(&session);
        if is_lost || held.is_some_and(|held| held.record.owner > record.owner) {
            return None;
        }
        let replaced = self.remove(session);
        let state = RecordState::Live {
            send_queue,
            key: None,
        };
        let held = HeldRecord {
            revision,
            ..HeldRecord::new(record, state, next)
        };
        self.insert(session, held);
        Some(replaced)
    }

    /// The connection is known to the hub by `key`.
    pub(crate) fn opened(&mut self, hold: LeaseHold, opened: SessionKey) {
        if let Some((_, key)) = self.live(hold) {
            *key = Some(opened);
        }
    }

    /// The hub is about to forget the connection: what it says of its positions from now on is nothing.
    pub(crate) fn leaving(&mut self, hold: LeaseHold) {
        if let Some((_, key)) = self.live(hold) {
            *key = None;
        }
    }

    /// The client has its welcome, and the newest token with it: the former one is worth nothing.
    pub(crate) fn acked(&mut self, hold: LeaseHold) {
        if let Some((record, _)) = self.live(hold) {
            record.former = None;
        }
    }

    /// What the user says of its presence.
    pub(crate) fn presence(&mut self, hold: LeaseHold, status: PresenceStatus) {
        if let Some((record, _)) = self.live(hold) {
            record.presence = status;
        }
    }

    /// What a live session's client has acknowledged, as the hub knows by `of`.
    pub(crate) fn positions(&mut self, hold: LeaseHold, of: SessionKey, positions: Vec<Position>) {
        if let Some((record, key)) = self.live(hold)
            && *key == Some(of)
        {
            record.positions = positions;
        }
    }

    /// The connection ended, and its session may be resumed, from `positions` where they are known.
    pub(crate) fn ended(
        &mut self,
        hold: LeaseHold,
        positions: Option<Vec<Position>>,
        now: Instant,
    ) {
        let Some((record, _)) = self.live(hold) else {
            return;
        };
        if let Some(positions) = positions {
            record.positions = positions;
        }
        self.set_ended(hold.session, RecordState::Ended(now), now);
        self.touch(hold.session, now);
    }

    /// The session ended for good; `waits` is told when that is written.
    pub(crate) fn finished(&mut self, hold: LeaseHold, waits: oneshot::Sender<()>, now: Instant) {
        if self.live(hold).is_none() {
            return;
        }
        let held = self.held.get(&hold.session);
        if held.is_some_and(|held| held.revision == 0 && !held.writing) {
            // It never stood, and nobody has its token: there is nothing to write.
            let _own = self.remove(hold.session);
            return;
        }
        self.set_ended(hold.session, RecordState::Finished(now), now);
        if let Some(held) = self.held.get_mut(&hold.session) {
            held.waits = Some(waits);
        }
        self.touch(hold.session, now);
    }

    /// A session was taken over elsewhere.
    pub(crate) fn fence(&mut self, fence: Fence) -> Replaced {
        let Fence { session, owner } = fence;
        self.takings.lose(session, |taking| taking.owner < owner);
        match self.held.get(&session) {
            Some(held) if held.record.owner < owner => self.remove(session),
            _ => Replaced::default(),
        }
    }

    /// Whether a client may take the session over with this token. Where it may, the connection here has lost it in the
    /// same step, so that nothing it proves counts any more.
    pub(crate) fn let_go(
        &mut self,
        session: SessionId,
        hash: &TokenHash,
        now: Instant,
    ) -> (Answer, Replaced) {
        if self.takings.lose(session, |taking| taking.is_good(hash)) {
            return (Answer::Granted, Replaced::default());
        }
        let Some(held) = self.held.get(&session) else {
            return (Answer::Unknown, Replaced::default());
        };
        let record = &held.record;
        let is_former = record.former.as_ref().is_some_and(|it| is_same(it, hash));
        let is_good = is_same(&record.token, hash) || is_former;
        match &held.state {
            _ if !is_good => (Answer::Refused, Replaced::default()),
            RecordState::Finished(_) => (Answer::Refused, Replaced::default()),
            RecordState::Ended(_) => (Answer::Granted, Replaced::default()),
            RecordState::Live { send_queue, .. } => {
                let replaced = Replaced(vec![Arc::clone(send_queue)]);
                self.set_ended(session, RecordState::Ended(now), now);
                (Answer::Granted, replaced)
            }
        }
    }

    /// Whether the session ended for good here, as this owner or a later one, and that is not written yet.
    pub(crate) fn has_finished(&self, session: SessionId, owner: Ownership) -> bool {
        let held = self.held.get(&session);
        held.is_some_and(|held| {
            matches!(held.state, RecordState::Finished(_)) && held.record.owner >= owner
        })
    }

    /// What is held of a session.
    pub(crate) fn entry(&self, session: SessionId) -> Option<Entry> {
        self.held.get(&session).map(|held| held.entry())
    }

    fn live(&mut self, hold: LeaseHold) -> Option<(&mut Record, &mut Option<SessionKey>)> {
        let held = self.held.get_mut(&hold.session)?;
        if held.record.owner.take_over != hold.take_over {
            return None;
        }
        match &mut held.state {
            RecordState::Live { key, .. } => Some((&mut held.record, key)),
            RecordState::Ended(_) | RecordState::Finished(_) => None,
        }
    }

    fn set_ended(&mut self, session: SessionId, state: RecordState, now: Instant) {
        let Some(held) = self.held.get_mut(&session) else {
            return;
        };
        let expires = state.expires(self.times);
        // One that ended for good is soon written and gone, and must not give way before.
        let dropped = match state {
            RecordState::Ended(_) => self.ended.add(session, &held.record, now),
            RecordState::Live { .. } | RecordState::Finished(_) => Vec::new(),
        };
        held.state = state;
        self.set_due(session, expires.unwrap_or(now));
        for one in dropped {
            if let Some(held) = self.held.get(&one) {
                self.dropped.add(one, held.revision, held.writing);
            }
            // They have ended: no connection serves them.
            let _none = self.remove(one).0.is_empty();
        }
    }

    fn insert(&mut self, session: SessionId, held: HeldRecord) {
        self.due.insert((held.due, session));
        self.held.insert(session, Box::new(held));
    }

    fn remove(&mut self, session: SessionId) -> Replaced {
        let Some(held) = self.held.remove(&session) else {
            return Replaced::default();
        };
        self.due.remove(&(held.due, session));
        self.unsettled -= usize::from(!held.settled);
        if let RecordState::Ended(at) = held.state {
            self.ended.remove(session, &held.record, at);
        }
        match held.state {
            RecordState::Live { send_queue, .. } => Replaced(vec![send_queue]),
            RecordState::Ended(_) | RecordState::Finished(_) => Replaced::default(),
        }
    }
}

impl HeldRecord {
    const fn new(record: Record, state: RecordState, due: Instant) -> Self {
        Self {
            record,
            revision: 0,
            state,
            due,
            writing: false,
            again: false,
            settled: true,
            waits: None,
        }
    }

    fn entry(&self) -> Entry {
        match self.state {
            RecordState::Live { .. } | RecordState::Ended(_) => {
                Entry::Live(Box::new(self.record.clone()))
            }
            RecordState::Finished(_) => self.record.to_ended(),
        }
    }
}

#[cfg(test)]
mod tests;
