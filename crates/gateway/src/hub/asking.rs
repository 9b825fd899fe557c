//! What a shard asks workers about memberships of one of its conversations: when an addition was heard, or a session speaks there.

use super::{
    ConversationId, Effect, Membership, MembershipQuery, MembershipsOf, Purpose, RETRY_DELAY,
    Retry, Seq, Session, Shard, UserMemberships,
};
use crate::account::{Account, SessionKey};

/// Users in one question.
const MAX_QUERY_USERS: usize = 100;

impl Shard {
    /// Asks whether additions that were heard still hold.
    pub(super) fn confirm(&mut self, of: Vec<MembershipsOf>) {
        for some in of.chunks(MAX_QUERY_USERS) {
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
            if let Some(session) = session.filter(|session| session.is_open()) {
                act(session);
            }
        }
    }

    fn ask(&mut self, of: Vec<MembershipsOf>, purpose: Purpose) {
        self.effects.push(Effect::MembershipQuery(MembershipQuery {
            of,
            purpose,
            epoch: self.epoch,
            asked: self.clock,
        }));
    }

    /// The memberships that were asked for have come.
    pub(crate) fn memberships(&mut self, ask: MembershipQuery, answers: Vec<UserMemberships>) {
        if ask.epoch != self.epoch || answers.len() != ask.of.len() {
            self.ask_again(ask);
            return;
        }
        match ask.purpose {
            Purpose::MembershipLookup => {
                for (of, answer) in ask.of.iter().zip(&answers) {
                    self.learn_standing(of, answer, ask.asked);
                }
            }
            Purpose::Confirm(number) => {
                for (of, answer) in ask.of.iter().zip(answers) {
                    // An earlier membership may have begun and ended unheard: its end comes before the later one's beginning.
                    let was_open = |_: SessionKey, session: &Session| session.opened <= ask.asked;
                    self.learn(&account_of(of), &answer.ended, was_open);
                    self.learn(&account_of(of), &answer.memberships, was_open);
                    for (account, id) in conversations(of) {
                        self.each_open(&account, |session| session.confirmed(id, number));
                        self.release_all(&account, Some(id));
                    }
                }
            }
            Purpose::Opening(..) | Purpose::Reconcile => {}
        }
    }

    /// Lets what waited for an answer go.
    pub(super) fn release_all(&mut self, account: &Account, only: Option<ConversationId>) {
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
    pub(crate) fn ask_failed(&mut self, ask: MembershipQuery) {
        self.effects
            .push(Effect::Later(RETRY_DELAY, Retry::MembershipQuery(ask)));
    }

    /// Asks again what has no answer that counts, where anyone still wants it.
    pub(super) fn ask_again(&mut self, ask: MembershipQuery) {
        match ask.purpose {
            Purpose::Confirm(_) => {
                let is_here = |of: &MembershipsOf| self.present.contains_key(&account_of(of));
                let of: Vec<_> = ask.of.into_iter().filter(is_here).collect();
                if !of.is_empty() {
                    self.ask(of, ask.purpose);
                }
            }
            // Whoever asked for a standing has its answer, and the index will learn of it by the feed.
            Purpose::Opening(..) | Purpose::Reconcile | Purpose::MembershipLookup => {}
        }
    }

    /// Memberships that the user's open sessions may not know: they are entered from their joining on.
    /// `proves` says for which of them the answer counts as the last word.
    pub(super) fn learn(
        &mut self,
        account: &Account,
        memberships: &[Membership],
        proves: impl Fn(SessionKey, &Session) -> bool,
    ) {
        for key in self.present.get(account).cloned().unwrap_or_default() {
            let session = self.sessions.get(&key);
            let Some(session) = session.filter(|session| session.is_open()) else {
                continue;
            };
            let may_know = proves(key, session);
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

    /// The feed began anew for this shard: every session is to be told its memberships again, because what was lost may have been one.
    pub(crate) const fn began(&mut self, epoch: u64) {
        self.epoch = epoch;
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
