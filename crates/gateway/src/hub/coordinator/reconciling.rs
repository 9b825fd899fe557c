//! When the feed began anew, for one shard or for all: every user that is here is asked for again, a few at a time.

use std::sync::Arc;

use confab_protocol::query::{MembershipsOf, UserMemberships};

use super::{
    Account, Coordinator, Effect, MAX_QUERY_POSITIONS, MembershipQuery, Phase, Purpose,
    Reconciliation, Step, Stepped, Ticket,
};
use crate::hub::asking::{account_of, memberships_of};

/// Users in one question, and how many such questions are on their way at once.
pub(super) const MAX_QUERY_USERS: usize = 100;
pub(super) const MAX_CONCURRENT_QUERIES: usize = 4;

impl Coordinator {
    /// The feed began anew for some shard, which has this epoch now: whoever is here is asked for again, and every session that opens
    /// begins anew, because what its answer did not know may have been missed.
    pub(crate) fn began(&mut self, epoch: u64) {
        self.epoch = epoch;
        (self.reconciling, self.is_broken) = (0, true);
        self.to_reconcile = self.present.keys().cloned().collect();
        self.reconcile_more();
    }

    /// A user's sessions opened by what may be older than the last break: it is asked for again and again until a worker answers.
    pub(super) fn reconcile_also(&mut self, account: Arc<Account>) {
        self.to_reconcile.push(account);
        self.is_broken = true;
        self.reconcile_more();
    }

    pub(super) fn reconcile_more(&mut self) {
        while self.reconciling < MAX_CONCURRENT_QUERIES && !self.to_reconcile.is_empty() {
            let rest = self.to_reconcile.len().saturating_sub(MAX_QUERY_USERS);
            let of = self.to_reconcile.split_off(rest);
            self.reconciling += 1;
            let steps = (0..self.shards.count())
                .map(|_| Step::HeldPositions(of.clone().into(), Vec::new()));
            let (steps, epoch) = (steps.collect(), self.epoch);
            let ticket = Ticket::Held {
                epoch,
                asked: self.clock,
                of,
            };
            self.steps(ticket, steps);
        }
        if self.reconciling == 0 && std::mem::take(&mut self.is_broken) {
            self.effects.push(Effect::Reconciled);
        }
    }

    /// The shards said what is held for users: they are asked for, in as many questions as that takes.
    pub(super) fn held(
        &mut self,
        epoch: u64,
        asked: u64,
        of: &[Arc<Account>],
        answers: Vec<Stepped>,
    ) {
        if epoch != self.epoch {
            return;
        }
        let mut all: Vec<_> = of.iter().map(|account| memberships_of(account)).collect();
        for answer in answers {
            let Stepped::HeldPositions(held) = answer else {
                continue;
            };
            for (one, held) in all.iter_mut().zip(held) {
                one.held.extend(held);
            }
        }
        self.reconciling -= 1;
        let (mut question, mut named) = (Vec::new(), 0);
        for one in all {
            if named > 0 && named + one.held.len() > MAX_QUERY_POSITIONS {
                self.ask_reconcile(asked, std::mem::take(&mut question));
                named = 0;
            }
            named += one.held.len();
            question.push(one);
        }
        if !question.is_empty() {
            self.ask_reconcile(asked, question);
        }
        self.reconcile_more();
    }

    fn ask_reconcile(&mut self, asked: u64, of: Vec<MembershipsOf>) {
        self.reconciling += 1;
        self.effects.push(Effect::MembershipQuery(MembershipQuery {
            of,
            purpose: Purpose::Reconcile,
            epoch: self.epoch,
            asked,
        }));
    }

    /// Workers told of users: the shards take it in.
    pub(super) fn reconcile_answered(
        &mut self,
        of: Vec<MembershipsOf>,
        answers: Vec<UserMemberships>,
        asked: u64,
    ) {
        let mut parts: Vec<Vec<Reconciliation>> =
            (0..self.shards.count()).map(|_| Vec::new()).collect();
        let mut more = Vec::new();
        for (of, answer) in of.into_iter().zip(answers) {
            let account = account_of(&of);
            let Some((account, keys)) = self.present.get_key_value(&account) else {
                continue;
            };
            let was_open = |key: &&super::SessionKey| {
                let session = self.sessions.get(*key);
                session.is_some_and(|session| {
                    matches!(session.phase, Phase::Open) && session.opened <= asked
                })
            };
            let proves: Arc<[_]> = keys.iter().filter(was_open).copied().collect();
            let UserMemberships {
                memberships,
                ended,
                next,
            } = answer;
            let whole = next.is_none().then_some(self.epoch);
            let memberships: Vec<Vec<_>> = self.shards.split(memberships, |m| m.conversation);
            let ended: Vec<Vec<_>> = self.shards.split(ended, |m| m.conversation);
            let told = memberships.into_iter().zip(ended);
            for (part, (memberships, ended)) in parts.iter_mut().zip(told) {
                part.push(Reconciliation {
                    account: Arc::clone(account),
                    proves: Arc::clone(&proves),
                    memberships,
                    ended,
                    whole,
                });
            }
            if next.is_some() {
                more.push(MembershipsOf { after: next, ..of });
            }
        }
        let ticket = Ticket::Told {
            epoch: self.epoch,
            asked,
            more,
        };
        let steps = parts.into_iter().map(Step::Reconciliation).collect();
        self.steps(ticket, steps);
    }

    /// The shards took it in.
    pub(super) fn taken_in(&mut self, epoch: u64, asked: u64, more: Vec<MembershipsOf>) {
        if epoch != self.epoch {
            return;
        }
        self.reconciling -= 1;
        if !more.is_empty() {
            self.ask_reconcile(asked, more);
        }
        self.reconcile_more();
    }
}
