//! What workers are asked about memberships: when a session opens, when an addition was heard, and after a break.

use std::sync::Arc;

use super::{
    AGAIN, Account, Ask, ConversationId, Effect, FxHashMap, Hub, Membership, MembershipsOf,
    Purpose, Retry, Seq, Session, UserMemberships,
};

/// Users in one question after a break, and how many such questions are on their way at once.
const RECONCILE_USERS: usize = 100;
const RECONCILE_ASKS: usize = 4;
/// Positions named in one question, about: a question fits one message of NATS many times.
pub(super) const NAMED: usize = 10_000;

impl Hub {
    /// Asks whether additions that were heard still hold.
    pub(super) fn confirm(&mut self, of: Vec<MembershipsOf>) {
        for some in of.chunks(RECONCILE_USERS) {
            self.confirmations += 1;
            let number = self.confirmations;
            for (account, id) in some.iter().flat_map(conversations) {
                self.each_open(&account, |session| {
                    session.confirming.entry(id).or_default().push(number);
                });
            }
            self.ask(some.to_vec(), Purpose::Confirm(number));
        }
    }

    /// Does something with every open session of an account.
    fn each_open(&mut self, account: &Account, mut act: impl FnMut(&mut Session)) {
        for key in self.present.get(account).into_iter().flatten() {
            let session = self.sessions.get_mut(key);
            if let Some(session) = session.filter(|session| session.opening.is_none()) {
                act(session);
            }
        }
    }

    pub(super) fn ask(&mut self, of: Vec<MembershipsOf>, purpose: Purpose) {
        self.ask_as_of(self.clock, of, purpose);
    }

    /// Asks for more of what was first asked for earlier, or for the same again.
    fn ask_as_of(&mut self, asked: u64, of: Vec<MembershipsOf>, purpose: Purpose) {
        self.effects.push(Effect::Ask(Ask {
            of,
            purpose,
            epoch: self.epoch,
            asked,
        }));
    }

    /// The memberships that were asked for have come.
    pub(crate) fn memberships(&mut self, ask: Ask, answers: Vec<UserMemberships>) {
        if ask.epoch != self.epoch || answers.len() != ask.of.len() {
            self.ask_again(ask);
            return;
        }
        match ask.purpose {
            Purpose::Opening(size, keys) => self.openings_answered(size, keys, answers),
            Purpose::Standing => {
                for (of, answer) in ask.of.iter().zip(&answers) {
                    self.learn_standing(of, answer, ask.asked);
                }
            }
            Purpose::Confirm(number) => {
                for (of, answer) in ask.of.iter().zip(answers) {
                    // An earlier membership may have begun and ended unheard: its end comes before the later one's beginning.
                    self.learn(&account_of(of), &answer.ended, ask.asked);
                    self.learn(&account_of(of), &answer.memberships, ask.asked);
                    for (account, id) in conversations(of) {
                        self.each_open(&account, |session| session.confirmed(id, number));
                        self.release_all(&account, Some(id));
                    }
                }
            }
            Purpose::Reconcile => {
                let told = ask.of.into_iter().zip(answers);
                let more = told
                    .filter_map(|(of, answer)| self.reconciled(of, &answer, ask.asked))
                    .collect();
                self.reconciling -= 1;
                self.reconcile_more(ask.asked, more);
            }
        }
    }

    /// A user was told of after a break; gives the question for the rest.
    fn reconciled(
        &mut self,
        of: MembershipsOf,
        answer: &UserMemberships,
        asked: u64,
    ) -> Option<MembershipsOf> {
        let account = account_of(&of);
        self.learn(&account, &answer.ended, asked);
        self.learn(&account, &answer.memberships, asked);
        if answer.next.is_some() {
            return Some(MembershipsOf {
                after: answer.next,
                ..of
            });
        }
        let epoch = self.epoch;
        self.each_open(&account, |session| {
            if session.opened <= asked {
                session.epoch = epoch;
                session.claims = FxHashMap::default();
            }
        });
        self.release_all(&account, None);
        None
    }

    /// Lets what waited for an answer go.
    fn release_all(&mut self, account: &Account, only: Option<ConversationId>) {
        for key in self.present.get(account).cloned().unwrap_or_default() {
            let session = self.sessions.get(&key);
            let ids: Vec<_> = match (only, session) {
                (Some(id), _) => vec![id],
                (None, Some(session)) => session.conversations.iter().collect(),
                (None, None) => Vec::new(),
            };
            for id in ids {
                self.release(id, key);
            }
        }
    }

    /// The memberships could not be asked for now.
    pub(crate) fn ask_failed(&mut self, ask: Ask) {
        if let Purpose::Opening(size, keys) = ask.purpose {
            self.openings_failed(size, keys);
            return;
        }
        self.effects.push(Effect::Later(AGAIN, Retry::Ask(ask)));
    }

    /// Asks again what has no answer that counts, where anyone still wants it.
    pub(super) fn ask_again(&mut self, ask: Ask) {
        let current = ask.epoch == self.epoch;
        match ask.purpose {
            Purpose::Opening(size, keys) => self.openings_again(size, keys),
            Purpose::Confirm(_) => {
                let is_here = |of: &MembershipsOf| self.present.contains_key(&account_of(of));
                let of: Vec<_> = ask.of.into_iter().filter(is_here).collect();
                if !of.is_empty() {
                    self.ask(of, ask.purpose);
                }
            }
            // One from before the last break is covered by the asking that the break began.
            Purpose::Reconcile if current => {
                self.ask_as_of(ask.asked, ask.of, Purpose::Reconcile);
            }
            // Whoever asked for a standing has its answer, and the index will learn of it by the feed.
            Purpose::Reconcile | Purpose::Standing => {}
        }
    }

    /// Memberships that the user's open sessions may not know: they are entered from their joining on.
    pub(super) fn learn(&mut self, account: &Account, memberships: &[Membership], asked: u64) {
        for key in self.present.get(account).cloned().unwrap_or_default() {
            let session = self.sessions.get(&key);
            let Some(session) = session.filter(|session| session.opening.is_none()) else {
                continue;
            };
            let may_know = session.opened <= asked;
            for membership in memberships {
                if may_know {
                    self.check_claim(key, membership);
                }
                self.enter_unknown(key, *membership);
            }
        }
        for membership in memberships {
            self.count(membership);
        }
    }

    /// The feed broke: every user that is here is asked for again, in paced batches, and every session that opens begins
    /// anew, because what its answer did not know may have been missed.
    pub(crate) fn reconcile(&mut self) {
        self.epoch += 1;
        self.reconciling = 0;
        self.to_reconcile = self.present.keys().cloned().collect();
        self.reconcile_more(self.clock, Vec::new());
    }

    /// A user's sessions opened without a worker's word: it is asked for again and again until one answers.
    pub(super) fn reconcile_also(&mut self, account: Arc<Account>) {
        self.to_reconcile.push(account);
        self.reconcile_more(self.clock, Vec::new());
    }

    fn reconcile_more(&mut self, asked: u64, more: Vec<MembershipsOf>) {
        if !more.is_empty() {
            self.reconciling += 1;
            self.ask_as_of(asked, more, Purpose::Reconcile);
        }
        while self.reconciling < RECONCILE_ASKS && !self.to_reconcile.is_empty() {
            let (mut of, mut named) = (Vec::new(), 0);
            while of.len() < RECONCILE_USERS
                && named < NAMED
                && let Some(account) = self.to_reconcile.pop()
            {
                let one = self.held_by(&account);
                named += one.held.len();
                of.push(one);
            }
            self.reconciling += 1;
            self.ask(of, Purpose::Reconcile);
        }
        if self.reconciling == 0 {
            self.effects.push(Effect::Reconciled);
        }
    }

    /// What is held for a user: every conversation, with the position up to which all its sessions have it, or claim to.
    fn held_by(&self, account: &Account) -> MembershipsOf {
        let mut held: FxHashMap<ConversationId, Seq> = FxHashMap::default();
        for key in self.present.get(account).into_iter().flatten() {
            let Some(session) = self.sessions.get(key) else {
                continue;
            };
            for id in session.conversations.iter() {
                let conversation = self.conversations.get(&id).into_iter();
                for entry in conversation.flat_map(|there| there.entries_of(*key)) {
                    let position = held.entry(id).or_insert(entry.cursor);
                    *position = entry.cursor.min(*position);
                }
            }
            for (id, claim) in &session.claims {
                let position = held.entry(*id).or_insert(*claim);
                *position = (*claim).min(*position);
            }
        }
        MembershipsOf {
            held: held.into_iter().collect(),
            ..memberships_of(account)
        }
    }
}

/// The question whether an addition that was heard still holds. A membership that began with it and ended meanwhile is
/// owed as well, so its position is named.
pub(super) fn confirmation(
    account: &Account,
    conversation: ConversationId,
    heard: Seq,
) -> MembershipsOf {
    MembershipsOf {
        only: Some(vec![conversation]),
        held: vec![(conversation, heard - 1)],
        ..memberships_of(account)
    }
}

/// The conversations that a confirmation is about.
fn conversations(of: &MembershipsOf) -> impl Iterator<Item = (Account, ConversationId)> {
    of.only.iter().flatten().map(|id| (account_of(of), *id))
}

pub(super) fn account_of(of: &MembershipsOf) -> Account {
    Account {
        tenant: of.tenant.clone(),
        user: of.user.clone(),
    }
}

pub(super) fn memberships_of(account: &Account) -> MembershipsOf {
    MembershipsOf {
        tenant: account.tenant.clone(),
        user: account.user.clone(),
        only: None,
        held: Vec::new(),
        after: None,
    }
}
