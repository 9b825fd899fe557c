//! What workers are asked about memberships: when a session opens, when an addition was heard, and after a break.

use std::sync::Arc;

use super::{
    AGAIN, Account, Ask, Asking, ConversationId, Effect, FxHashMap, FxHashSet, Hub, Membership,
    MembershipsOf, Opened, Opening, Purpose, Retry, Seq, Session, SessionKey, UserMemberships,
};

/// Users in one question after a break, and how many such questions are on their way at once.
const RECONCILE_USERS: usize = 100;
const RECONCILE_ASKS: usize = 4;

impl Hub {
    /// A session opens: it is present from now on, and asks for its memberships.
    pub(crate) fn open(&mut self, opening: Opening) {
        let Opening {
            key,
            account,
            outbox,
            start: _,
        } = opening;
        let account = Arc::new(account);
        self.present
            .entry(Arc::clone(&account))
            .or_default()
            .push(key);
        let session = Session {
            account,
            outbox,
            conversations: FxHashSet::default(),
            ended: FxHashMap::default(),
            opening: Some(Asking::default()),
            confirming: FxHashMap::default(),
            epoch: self.epoch,
        };
        self.sessions.insert(key, session);
        self.ask_for_opening(key, None);
    }

    fn ask_for_opening(&mut self, key: SessionKey, after: Option<ConversationId>) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        if after.is_none()
            && let Some(opening) = &mut session.opening
        {
            opening.memberships.clear();
            opening.ended.clear();
        }
        let of = vec![MembershipsOf {
            after,
            ..memberships_of(&session.account)
        }];
        self.ask(of, Purpose::Opening(key));
    }

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

    fn ask(&mut self, of: Vec<MembershipsOf>, purpose: Purpose) {
        self.effects.push(Effect::Ask(Ask {
            of,
            purpose,
            epoch: self.epoch,
        }));
    }

    /// The memberships that were asked for have come.
    pub(crate) fn memberships(&mut self, ask: Ask, answers: Vec<UserMemberships>) {
        if ask.epoch != self.epoch || answers.len() != ask.of.len() {
            self.ask_again(ask);
            return;
        }
        match ask.purpose {
            Purpose::Opening(key) => {
                for answer in answers {
                    self.opening_page(key, answer);
                }
            }
            Purpose::Standing => {
                for (of, answer) in ask.of.iter().zip(&answers) {
                    self.learn_standing(of, answer);
                }
            }
            Purpose::Confirm(number) => {
                for (of, answer) in ask.of.iter().zip(answers) {
                    // An earlier membership may have begun and ended unheard: its end comes before the later one's beginning.
                    self.learn(&account_of(of), &answer.ended);
                    self.learn(&account_of(of), &answer.memberships);
                    for (account, id) in conversations(of) {
                        self.each_open(&account, |session| session.confirmed(id, number));
                        self.release_all(&account, Some(id));
                    }
                }
            }
            Purpose::Reconcile => {
                let told = ask.of.into_iter().zip(answers);
                let more = told
                    .filter_map(|(of, answer)| self.reconciled(of, &answer))
                    .collect();
                self.reconciling -= 1;
                self.reconcile_more(more);
            }
        }
    }

    /// A user was told of after a break; gives the question for the rest.
    fn reconciled(&mut self, of: MembershipsOf, answer: &UserMemberships) -> Option<MembershipsOf> {
        let account = account_of(&of);
        self.learn(&account, &answer.ended);
        self.learn(&account, &answer.memberships);
        if answer.next.is_some() {
            return Some(MembershipsOf {
                after: answer.next,
                ..of
            });
        }
        let epoch = self.epoch;
        self.each_open(&account, |session| session.epoch = epoch);
        self.release_all(&account, None);
        None
    }

    /// Lets what waited for an answer go.
    fn release_all(&mut self, account: &Account, only: Option<ConversationId>) {
        for key in self.present.get(account).cloned().unwrap_or_default() {
            let all = self
                .sessions
                .get(&key)
                .map(|session| &session.conversations);
            let ids: Vec<_> = match only {
                Some(id) => vec![id],
                None => all.into_iter().flatten().copied().collect(),
            };
            for id in ids {
                self.release(id, key);
            }
        }
    }

    /// The memberships could not be asked for now.
    pub(crate) fn ask_failed(&mut self, ask: Ask) {
        self.effects.push(Effect::Later(AGAIN, Retry::Ask(ask)));
    }

    /// Asks again what has no answer that counts, where anyone still wants it.
    pub(super) fn ask_again(&mut self, ask: Ask) {
        let current = ask.epoch == self.epoch;
        match ask.purpose {
            Purpose::Opening(key) => {
                let after = ask.of.first().and_then(|of| of.after).filter(|_| current);
                self.ask_for_opening(key, after);
            }
            Purpose::Confirm(_) => {
                let is_here = |of: &MembershipsOf| self.present.contains_key(&account_of(of));
                let of: Vec<_> = ask.of.into_iter().filter(is_here).collect();
                if !of.is_empty() {
                    self.ask(of, ask.purpose);
                }
            }
            // One from before the last break is covered by the asking that the break began.
            Purpose::Reconcile if current => self.ask(ask.of, Purpose::Reconcile),
            // Whoever asked for a standing has its answer, and the index will learn of it by the feed.
            Purpose::Reconcile | Purpose::Standing => {}
        }
    }

    fn opening_page(&mut self, key: SessionKey, answer: UserMemberships) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let Some(opening) = &mut session.opening else {
            return;
        };
        opening.memberships.extend(answer.memberships);
        opening.ended.extend(answer.ended);
        if answer.next.is_some() {
            self.ask_for_opening(key, answer.next);
            return;
        }
        let account = Arc::clone(&session.account);
        let Asking {
            mut memberships,
            ended,
            noted,
        } = session.opening.take().unwrap_or_default();
        let Behind { over, later } = end_told(&mut memberships, ended);
        session.note_ended(&over);
        session.epoch = self.epoch;
        let heads: FxHashMap<_, _> = memberships
            .iter()
            .map(|m| (m.conversation, m.head))
            .collect();
        for membership in memberships {
            self.enter(key, membership, membership.head);
            self.count(&membership);
        }
        for membership in later {
            self.enter(key, membership, membership.joined - 1);
        }
        let is_unknown = |(id, seq): &(ConversationId, Seq)| {
            heads.get(id).is_none_or(|head| head < seq) && !self.knows(key, *id, *seq)
        };
        let unknown = noted.into_iter().filter(is_unknown);
        let of = unknown
            .map(|(id, seq)| confirmation(&account, id, seq))
            .collect();
        self.confirm(of);
        let opened = Opened {
            heads: heads.into_iter().collect(),
            truncated: Vec::new(),
            replayed: 0,
        };
        self.effects.push(Effect::Opened(key, opened));
    }

    /// Memberships that the user's open sessions may not know: they are entered from their joining on.
    pub(super) fn learn(&mut self, account: &Account, memberships: &[Membership]) {
        for key in self.present.get(account).cloned().unwrap_or_default() {
            if self
                .sessions
                .get(&key)
                .is_none_or(|session| session.opening.is_some())
            {
                continue;
            }
            for membership in memberships {
                self.enter(key, *membership, membership.joined - 1);
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
        self.reconcile_more(Vec::new());
    }

    fn reconcile_more(&mut self, more: Vec<MembershipsOf>) {
        if !more.is_empty() {
            self.reconciling += 1;
            self.ask(more, Purpose::Reconcile);
        }
        while self.reconciling < RECONCILE_ASKS && !self.to_reconcile.is_empty() {
            let from = self.to_reconcile.len().saturating_sub(RECONCILE_USERS);
            let accounts = self.to_reconcile.split_off(from);
            let of = accounts
                .iter()
                .map(|account| self.held_by(account))
                .collect();
            self.reconciling += 1;
            self.ask(of, Purpose::Reconcile);
        }
        if self.reconciling == 0 {
            self.effects.push(Effect::Reconciled);
        }
    }

    /// What is held for a user: every conversation, with the position up to which all its sessions have it.
    fn held_by(&self, account: &Account) -> MembershipsOf {
        let keys = self.present.get(account).into_iter().flatten();
        let sessions = keys.filter_map(|key| self.sessions.get(key));
        let ids: FxHashSet<_> = sessions
            .flat_map(|session| &session.conversations)
            .collect();
        let position =
            |id: &ConversationId| self.conversations.get(id).and_then(|c| c.held_by(account));
        let held = ids
            .into_iter()
            .filter_map(|id| Some((*id, position(id)?)))
            .collect();
        MembershipsOf {
            held,
            ..memberships_of(account)
        }
    }
}

/// What ended while a session's memberships were read page by page.
#[derive(Default)]
struct Behind {
    /// What was over before: it is not owed.
    over: Vec<Membership>,
    /// What began behind one that was told as present.
    later: Vec<Membership>,
}

/// A membership that ended behind the page that told it as present is owed its end, and so are those between that and the
/// last page. Pages come in the order of conversation and joining.
fn end_told(memberships: &mut [Membership], ended: Vec<Membership>) -> Behind {
    let place = |m: &Membership| (m.conversation, m.joined);
    let mut behind = Behind::default();
    for one in ended {
        match memberships.binary_search_by_key(&place(&one), place) {
            Ok(at) => {
                if let Some(told) = memberships.get_mut(at) {
                    told.left = one.left;
                }
            }
            Err(at) => {
                let before = at.checked_sub(1).and_then(|before| memberships.get(before));
                if before.is_some_and(|told| told.conversation == one.conversation) {
                    behind.later.push(one);
                } else {
                    behind.over.push(one);
                }
            }
        }
    }
    behind.later.sort_unstable_by_key(place);
    behind
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
