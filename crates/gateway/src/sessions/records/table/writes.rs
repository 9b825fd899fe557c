//! Which record is to be written when, and what became of it.

use std::time::{Duration, Instant};

use confab_bus::records::{Entry, Ownership};
use confab_protocol::fair::Owner;
use confab_protocol::ids::SessionId;

use super::super::owner_of;
use super::{LeaseHold, RecordState, Replaced, Table};
use crate::account::SessionKey;

/// How many records are written again a second when all of them are.
const REWRITES_PER_SECOND: u32 = 2000;

/// A record that is to be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueWrite {
    pub(crate) hold: LeaseHold,
    /// What the hub knows the session by, where it is live.
    pub(crate) key: Option<SessionKey>,
    /// By whose ration it is written; none for what says that a session ended for good.
    pub(crate) owner: Option<Owner>,
}

/// What is written.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) entry: Entry,
    pub(crate) user: Owner,
    pub(crate) owner: Ownership,
    pub(crate) revision: u64,
}

impl Table {
    /// When something is to be done next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many records changed since they were last stored.
    pub(crate) const fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The next record that is to be written by `now`. Those that can be resumed no more are forgotten.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<DueWrite> {
        while let Some((due, session)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let Some(held) = self.held.get_mut(&session) else {
                continue;
            };
            let expires = held.state.expires(self.times);
            if expires.is_some_and(|expires| expires <= now) {
                // It has ended: no connection serves it.
                let _none = self.remove(session).0.is_empty();
                continue;
            }
            held.writing = true;
            let key = match &held.state {
                RecordState::Live { key, .. } => *key,
                RecordState::Ended(_) | RecordState::Finished(_) => None,
            };
            let take_over = held.record.owner.take_over;
            let is_over = matches!(held.state, RecordState::Finished(_));
            return Some(DueWrite {
                hold: LeaseHold { session, take_over },
                key,
                owner: (!is_over).then(|| owner_of(&held.record)),
            });
        }
        None
    }

    /// The next record that is to be deleted, and under which revision it stands.
    pub(crate) fn take_dropped(&mut self) -> Option<(SessionId, u64)> {
        self.dropped.take()
    }

    /// What is to be written of a record that was due; none when the session is another's meanwhile.
    pub(crate) fn snapshot(&mut self, hold: LeaseHold) -> Option<Snapshot> {
        let held = self.held.get_mut(&hold.session)?;
        if held.record.owner.take_over != hold.take_over {
            return None;
        }
        // What changes from here on is written once more.
        held.again = false;
        Some(Snapshot {
            entry: held.entry(),
            user: owner_of(&held.record),
            owner: held.record.owner,
            revision: held.revision,
        })
    }

    /// It stands in the bucket. `chance`, in 0..1, spreads the next time.
    pub(crate) fn stored(&mut self, hold: LeaseHold, revision: u64, now: Instant, chance: f64) {
        let (window, period) = (self.times.window, self.times.period);
        let Some(held) = self.held.get_mut(&hold.session) else {
            self.dropped.written(hold.session, Some(revision));
            return;
        };
        if held.record.owner.take_over != hold.take_over {
            return;
        }
        (held.revision, held.writing) = (revision, false);
        if held.again {
            self.set_due(hold.session, now);
            return;
        }
        if let Some(waits) = held.waits.take() {
            // Who waited may be gone.
            let _gone = waits.send(()).is_err();
        }
        self.unsettled -= usize::from(!held.settled);
        held.settled = true;
        match held.state {
            RecordState::Live { .. } => {
                let next = now + period.mul_f64(0.5 + chance / 2.0);
                self.set_due(hold.session, next);
            }
            RecordState::Ended(at) => self.set_due(hold.session, at + window),
            RecordState::Finished(_) => {
                // It has ended: no connection serves it.
                let _none = self.remove(hold.session).0.is_empty();
            }
        }
    }

    /// It could not be written now, and is due again at `at`.
    pub(crate) fn put_off(&mut self, hold: LeaseHold, at: Instant) {
        self.dropped.written(hold.session, None);
        if let Some(held) = self.held.get_mut(&hold.session)
            && held.record.owner.take_over == hold.take_over
        {
            held.writing = false;
            self.set_due(hold.session, at);
        }
    }

    /// The bucket says that the session is another's, or ended.
    pub(crate) fn lost(&mut self, hold: LeaseHold) -> Replaced {
        match self.held.get(&hold.session) {
            Some(held) if held.record.owner.take_over == hold.take_over => {
                self.remove(hold.session)
            }
            _ => Replaced::default(),
        }
    }

    /// Every record is to be written again, paced: the bucket may have lost them, or know of other owners.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let sessions: Vec<_> = self.held.keys().copied().collect();
        for (place, session) in (0..).zip(sessions) {
            let at = now + Duration::from_secs(1) * place / REWRITES_PER_SECOND;
            self.write_again(session, at);
        }
    }

    /// The records of live sessions are to be written at once: the gateway ends.
    pub(crate) fn write_live(&mut self, now: Instant) {
        let is_live = |held: &super::HeldRecord| matches!(held.state, RecordState::Live { .. });
        let live = self.held.iter().filter(|(_, held)| is_live(held));
        let live: Vec<_> = live.map(|(session, _)| *session).collect();
        for session in live {
            self.touch(session, now);
        }
    }

    /// A record changed: it is to be written at once.
    pub(super) fn touch(&mut self, session: SessionId, now: Instant) {
        if let Some(held) = self.held.get_mut(&session)
            && held.settled
        {
            held.settled = false;
            self.unsettled += 1;
        }
        self.write_again(session, now);
    }

    fn write_again(&mut self, session: SessionId, at: Instant) {
        match self.held.get_mut(&session) {
            Some(held) if held.writing => held.again = true,
            _ => self.set_due(session, at),
        }
    }

    pub(super) fn set_due(&mut self, session: SessionId, at: Instant) {
        if let Some(held) = self.held.get_mut(&session) {
            self.due.remove(&(held.due, session));
            held.due = at;
            // Whoever writes it says when it is due next.
            if !held.writing {
                self.due.insert((at, session));
            }
        }
    }
}
