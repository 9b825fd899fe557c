//! What concerns sessions as a whole: that each shard knows of them, how they open, and that their memberships are asked for again when
//! the feed began anew. No IO, no tasks, as the shards.
//!
//! 1. Every shard takes note of a session before its memberships are asked for: what is added later is noted there.
//! 2. An answer counts for the epoch in which it was asked. A shard in a later one lets nothing of it pass until it is asked for anew.
//! 3. The shards enter what the coordinator decided, of all of them, to be replayed; the welcome goes behind that.
//! 4. A user is asked for once, for all shards.

use std::sync::Arc;

use confab_protocol::query::UserMemberships;
use rustc_hash::FxHashMap;

use super::steps::{Reconciliation, RecordedOpening, Registration, ReplayBudget, ShardOpening};
use super::{
    Effect, FIRST_EPOCH, MembershipQuery, Opened, Opening, Purpose, RETRY_DELAY, ReplayLimits,
    Retry, Shards, Start, Step, Stepped, Ticket, WITHOUT_WORKERS,
};
use crate::account::{Account, SessionKey};

mod missed;
mod opening;
mod openings;
mod owed;
mod rechecking;
mod reconciling;
mod session;

pub(crate) use openings::OpeningSize;
use openings::Openings;
use rechecking::Round;
use session::{PendingQuery, Phase, Session};

/// Positions named in one question, about: a question fits one message of NATS many times.
const MAX_QUERY_POSITIONS: usize = 10_000;

/// The sessions of this gateway, whatever shards their conversations are in.
#[derive(Debug)]
pub(crate) struct Coordinator {
    shards: Shards,
    sessions: FxHashMap<SessionKey, Session>,
    present: FxHashMap<Arc<Account>, Vec<SessionKey>>,
    /// Sessions whose memberships are to be asked for, and how many such questions have no answer yet.
    openings: Openings,
    limits: ReplayLimits,
    /// The highest of the epochs that the feed's reader passed to shards.
    epoch: u64,
    /// Grows with every session that opens by what may be older than the last break.
    clock: u64,
    /// Users still to be asked for after the last break, and how many questions about them are not done with.
    to_reconcile: Vec<Arc<Account>>,
    reconciling: usize,
    /// Whether a break is among what they are asked for.
    is_broken: bool,
    /// Users who are asked for while more lingers than workers can tell.
    round: Round,
    /// Ranges that were named and not replayed since this was last asked.
    truncated: u64,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// Of a hub of so many shards.
    pub(crate) fn new(shards: Shards, limits: ReplayLimits) -> Self {
        Self {
            shards,
            sessions: FxHashMap::default(),
            present: FxHashMap::default(),
            openings: Openings::default(),
            limits,
            epoch: FIRST_EPOCH,
            clock: 0,
            to_reconcile: Vec::new(),
            reconciling: 0,
            is_broken: false,
            round: Round::default(),
            truncated: 0,
            effects: Vec::new(),
        }
    }

    /// What must be done since this was last asked.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How many sessions there are.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many sessions wait until their memberships are asked for: small and large ones.
    pub(crate) fn waiting_openings(&self) -> [usize; 2] {
        OpeningSize::ALL_SIZES.map(|size| self.openings.waiting(size))
    }

    /// How many ranges were named and not replayed since this was last asked.
    pub(crate) const fn take_truncated(&mut self) -> u64 {
        std::mem::replace(&mut self.truncated, 0)
    }

    /// Whose session it is.
    pub(crate) fn account(&self, key: SessionKey) -> Option<&Arc<Account>> {
        self.sessions.get(&key).map(|session| &session.account)
    }

    /// A session is gone; gives whose it was. The shards are told behind every step that it has with them.
    pub(crate) fn close(&mut self, key: SessionKey) -> Option<Arc<Account>> {
        let session = self.sessions.remove(&key)?;
        if let Some(keys) = self.present.get_mut(&session.account) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.present.remove(&session.account);
            }
        }
        Some(session.account)
    }

    /// All shards have taken their parts of a step.
    pub(crate) fn stepped(&mut self, ticket: Ticket, answers: Vec<Stepped>) {
        match ticket {
            Ticket::Registered(key) => self.registered(key),
            Ticket::Weighed(key) => self.weighed(key, answers),
            Ticket::Entered(key) => self.entered(key),
            Ticket::EnteredByRecord(key) => self.entered_by_record(key, answers),
            Ticket::Held { epoch, asked, of } => self.held(epoch, asked, &of, answers),
            Ticket::Told { epoch, asked, more } => self.taken_in(epoch, asked, more),
        }
    }

    /// The memberships that were asked for have come.
    pub(crate) fn memberships(&mut self, ask: MembershipQuery, answers: Vec<UserMemberships>) {
        let is_whole = answers.len() == ask.of.len();
        match ask.purpose {
            // One from before a break counts: what the break hides is asked for when the session is entered.
            Purpose::Opening(size, keys) if is_whole => {
                self.openings_answered(size, keys, answers);
            }
            Purpose::Opening(size, keys) => self.openings_failed(size, keys),
            Purpose::Reconcile if !is_whole || ask.epoch != self.epoch => self.ask_again(ask),
            Purpose::Reconcile => self.reconcile_answered(ask.of, answers, ask.asked),
            Purpose::Confirm(_) | Purpose::MembershipLookup => {}
        }
    }

    /// The memberships could not be asked for now.
    pub(crate) fn ask_failed(&mut self, ask: MembershipQuery) {
        if let Purpose::Opening(size, keys) = ask.purpose {
            self.openings_failed(size, keys);
            return;
        }
        self.effects
            .push(Effect::Later(RETRY_DELAY, Retry::MembershipQuery(ask)));
    }

    /// The time of [`Effect::Later`] has come.
    pub(crate) fn retry(&mut self, retry: Retry) {
        match retry {
            Retry::MembershipQuery(ask) => self.ask_again(ask),
            Retry::Open(keys) => self.open_later(keys),
            Retry::OpenWithout(key) => self.open_without_workers(key),
            Retry::Gap(_) | Retry::CatchUp(..) => {}
        }
    }

    /// Asks again what has no answer that counts, where anyone still wants it.
    fn ask_again(&mut self, ask: MembershipQuery) {
        match ask.purpose {
            // One from before the last break is covered by the asking that the break began.
            Purpose::Reconcile if ask.epoch == self.epoch => {
                self.effects.push(Effect::MembershipQuery(ask));
            }
            Purpose::Opening(..)
            | Purpose::Reconcile
            | Purpose::Confirm(_)
            | Purpose::MembershipLookup => {}
        }
    }

    fn steps(&mut self, ticket: Ticket, steps: Vec<Step>) {
        self.effects.push(Effect::Shards(ticket, steps));
    }
}
