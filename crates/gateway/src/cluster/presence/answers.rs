//! What this gateway answers when it is asked who is there, and what it learns from the answers of others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::GatewayId;
use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::signal::{MemberOf, Presence, PresenceStatus};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Presences, UpdateKind, account_of};
use crate::account::Account;

/// Users in one answer.
const MAX_WORDS: usize = 1000;
/// Conversations named in one answer: some 18 bytes each.
const MAX_CONVERSATIONS: usize = 10_000;
/// Conversations of users whose end is not said yet that are looked at for one answer, and of those who may come back.
const MAX_CLOSING: usize = 100_000;
const MAX_LINGERING: usize = 100_000;
/// For longer than this no answer is waited for.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Users that left while answers are waited for, of whom that is remembered; of those that came as many.
const MAX_CHANGES: usize = if cfg!(test) { 4 } else { 64 * 1024 };

/// Who came and left while answers are on their way: an answer may have been given before.
#[derive(Debug, Default)]
pub(super) struct ConcurrentChanges {
    /// Questions without an answer.
    asking: usize,
    /// By gateway and user, the number of the last word that said so.
    left: FxHashMap<(GatewayId, Arc<Account>), u64>,
    /// Who came meanwhile, the first one first, and where that is told here: an answer may have been given before.
    came: VecDeque<UserArrival>,
    /// When the last of those was forgotten for which there was no place.
    forgot_at: Option<Instant>,
}

/// A user that came.
#[derive(Debug)]
struct UserArrival {
    at: Instant,
    account: Arc<Account>,
    told_in: Arc<[MemberOf]>,
    named_at: u64,
}

impl ConcurrentChanges {
    pub(super) fn note(&mut self, gateway: GatewayId, account: &Arc<Account>, number: u64) {
        if self.asking > 0 && self.left.len() < MAX_CHANGES {
            self.left.insert((gateway, Arc::clone(account)), number);
        }
    }

    /// A user came at `now`, which is told here.
    pub(super) fn came(
        &mut self,
        account: &Arc<Account>,
        (told_in, named_at): (&Arc<[MemberOf]>, u64),
        now: Instant,
    ) {
        if self.asking == 0 {
            return;
        }
        let is_old = |at: &Instant| now.duration_since(*at) >= ANSWERS_TIMEOUT;
        while self.came.front().is_some_and(|came| is_old(&came.at)) {
            self.came.pop_front();
        }
        if self.came.len() >= MAX_CHANGES {
            self.forgot_at = self.came.pop_front().map(|came| came.at);
        }
        self.came.push_back(UserArrival {
            at: now,
            account: Arc::clone(account),
            told_in: Arc::clone(told_in),
            named_at,
        });
    }

    fn is_over(&self, gateway: GatewayId, account: &Arc<Account>, number: u64) -> bool {
        let left = self.left.get(&(gateway, Arc::clone(account)));
        left.is_some_and(|left| *left > number)
    }
}

/// What a gateway answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Who is there.
    pub(crate) words: Vec<Presence>,
    /// Whose last session here ended, and who may come back.
    pub(crate) lingering: Vec<Presence>,
    /// Whether these are all.
    pub(crate) is_whole: bool,
}

impl Presences {
    /// What is answered about some users of a tenant, and about members of `conversations`, of which `members` have sessions here.
    pub(crate) fn answer(
        &self,
        tenant: &TenantId,
        users: Vec<UserId>,
        conversations: &FxHashSet<ConversationId>,
        members: Vec<(Arc<Account>, MemberOf)>,
    ) -> Answer {
        let mut named: FxHashMap<Account, Vec<MemberOf>> = FxHashMap::default();
        let (lingering, mut is_whole) = self.lingering_here(tenant, conversations);
        is_whole &= members.len() <= MAX_CONVERSATIONS;
        is_whole &= self.closing_in(conversations, |member_of, account| {
            if account.tenant == *tenant {
                named.entry(account.clone()).or_default().push(member_of);
            }
        });
        for (account, member_of) in members.into_iter().take(MAX_CONVERSATIONS) {
            if account.tenant == *tenant {
                named.entry((*account).clone()).or_default().push(member_of);
            }
        }
        let mut words = Vec::new();
        for user in users {
            let tenant = tenant.clone();
            let account = Account { tenant, user };
            // Who may come back within its grace period was not away.
            let status = self.here(&account).or_else(|| self.lingering(&account));
            if let Some(status) = status {
                let of = named.remove(&account).unwrap_or_default();
                words.push(Presence::new(account.tenant, account.user, status, of));
            }
        }
        for (account, of) in named {
            if let Some(status) = self.here(&account) {
                words.push(Presence::new(account.tenant, account.user, status, of));
            }
        }
        is_whole &= words.len() <= MAX_WORDS;
        words.truncate(MAX_WORDS);
        Answer {
            words,
            lingering,
            is_whole,
        }
    }

    /// The members of these conversations whose last session was here, and who may come back; and whether these are all.
    fn lingering_here(
        &self,
        tenant: &TenantId,
        conversations: &FxHashSet<ConversationId>,
    ) -> (Vec<Presence>, bool) {
        let mut named: FxHashMap<&Account, Vec<MemberOf>> = FxHashMap::default();
        let mut is_whole = true;
        if !conversations.is_empty() {
            is_whole = self.lingering_in(conversations, MAX_LINGERING, |member_of, account| {
                if account.tenant == *tenant && self.was_here(account) {
                    named.entry(account).or_default().push(member_of);
                }
            });
        }
        let lingering = named.into_iter().filter_map(|(account, of)| {
            let (tenant, user) = (account.tenant.clone(), account.user.clone());
            Some(Presence::new(tenant, user, self.lingering(account)?, of))
        });
        let mut lingering: Vec<_> = lingering.collect();
        is_whole &= lingering.len() <= MAX_WORDS;
        lingering.truncate(MAX_WORDS);
        (lingering, is_whole)
    }

    /// Whether this gateway has said something of a user.
    fn was_here(&self, account: &Account) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.words.iter().any(|(by, ..)| *by == self.own))
    }

    /// What the user's sessions here say together; what was said of one whose end is not said yet, since it was never away if it comes back
    /// before.
    fn here(&self, account: &Account) -> Option<PresenceStatus> {
        let local = self.locals.get(account)?;
        let status = match local.status() {
            PresenceStatus::Offline => local.said?,
            status => status,
        };
        (status != PresenceStatus::Offline).then_some(status)
    }

    /// Gives each of these conversations with each of its members whose last session here ended, which is not said yet. Says whether these
    /// were all.
    fn closing_in(
        &self,
        ids: &FxHashSet<ConversationId>,
        mut give: impl FnMut(MemberOf, &Account),
    ) -> bool {
        let mut looked_at = 0;
        if ids.is_empty() {
            return true;
        }
        for account in &self.unsaid {
            let Some(local) = self.locals.get(account) else {
                continue;
            };
            if local.status() != PresenceStatus::Offline {
                continue;
            }
            looked_at += local.conversations.len();
            if looked_at > MAX_CLOSING {
                return false;
            }
            let asked = |one: &&MemberOf| ids.contains(&one.conversation);
            for one in local.conversations.iter().filter(asked) {
                give(*one, account);
            }
        }
        true
    }

    /// What was told of a user that has no session anywhere, and may come back.
    fn lingering(&self, account: &Account) -> Option<PresenceStatus> {
        let known = self.known.get(account)?;
        known.gone_at?;
        known
            .status
            .filter(|status| *status != PresenceStatus::Offline)
    }

    /// Others are asked: until [`Self::answered`], who leaves is remembered.
    pub(crate) const fn asks(&mut self) {
        self.concurrent.asking += 1;
    }

    /// The answers to a question were taken.
    pub(crate) fn answered(&mut self) {
        self.concurrent.asking = self.concurrent.asking.saturating_sub(1);
        if self.concurrent.asking == 0 {
            (self.concurrent.left, self.concurrent.came) = Default::default();
        }
    }

    /// Gives each of these conversations with each user of whom it was told there since `asked_at` that it came: no answer may name it. Says
    /// whether these were all.
    pub(crate) fn came_to(
        &self,
        ids: &FxHashSet<ConversationId>,
        asked_at: Instant,
        mut give: impl FnMut(MemberOf, &Account),
    ) -> bool {
        let since = self.concurrent.came.iter().rev();
        let forgot_at = self.concurrent.forgot_at;
        let mut are_all = forgot_at.is_none_or(|forgot| forgot < asked_at);
        for came in since.take_while(|came| came.at >= asked_at) {
            let told_in = (&*came.told_in, came.named_at);
            are_all &= self.give_in(ids, told_in, |one| give(one, &came.account));
        }
        are_all
    }

    /// Takes a word out of a gateway's answer; nobody is told of it. Says whether nothing newer was heard.
    pub(crate) fn heard_answer(
        &mut self,
        gateway: GatewayId,
        number: u64,
        presence: &Presence,
        now: Instant,
        carries: impl Fn(ConversationId) -> Option<bool>,
    ) -> bool {
        let account = account_of(presence);
        if self.concurrent.is_over(gateway, &account, number) {
            return false;
        }
        self.heard(
            (gateway, number),
            presence,
            UpdateKind::Answer,
            now,
            carries,
        );
        true
    }

    /// A gateway answers that a user's last session there ended, who may come back: it is kept, so that those who are told of it are told its end.
    pub(crate) fn heard_lingering(
        &mut self,
        presence: &Presence,
        now: Instant,
        carries: impl Fn(ConversationId) -> Option<bool>,
    ) {
        let account = account_of(presence);
        let here = self.lasting_in(&account, presence, |id| carries(id) == Some(true));
        if here.is_empty() || !self.know(&account) {
            return;
        }
        if let Some(known) = self.known.get_mut(&account) {
            // Those who ask are told; others may have been told nothing, or that it is gone.
            known.owe_to(&here);
            known.status.get_or_insert(presence.status);
        }
        self.settle(&account, &[], now);
    }

    /// Up to where a user is a member whom an answer names; none where it was heard to leave since.
    pub(crate) fn named_up_to(&self, account: &Account, member_of: MemberOf) -> Option<Seq> {
        if self.hostings.is_over(account, member_of) {
            return None;
        }
        Some(self.hostings.up_to_here(member_of, u64::MAX).as_of)
    }

    /// What stands of a user: what the gateways say, or said last where it may come back.
    pub(crate) fn status_of(&self, account: &Account) -> Option<PresenceStatus> {
        let known = self.known.get(account)?;
        let highest = known.highest();
        if highest == PresenceStatus::Offline {
            return self.lingering(account);
        }
        Some(highest)
    }

    /// Whether a gateway with sessions died within the grace period: it may have had members of conversations that have members here only since.
    pub(crate) fn lost_lately(&self, now: Instant) -> bool {
        let lost_at = self.lost_at;
        lost_at.is_some_and(|at| now.duration_since(at) < self.grace)
    }

    /// Gives each of these conversations with each of its members of whom a gateway said that it is there which did not answer: it may be dead, which
    /// counts only later. Looks at about so many conversations; says whether there was no such gateway, which may have had members of others.
    pub(crate) fn unanswered_in(
        &self,
        ids: &FxHashSet<ConversationId>,
        answered: &FxHashSet<GatewayId>,
        most: usize,
        mut give: impl FnMut(MemberOf, &Account),
    ) -> bool {
        let silent = self.speakers.but_for(answered);
        if silent.is_empty() {
            return true;
        }
        let (mut looked_at, mut have_answered) = (0, true);
        for (account, known) in &self.known {
            looked_at += 1;
            let is_there = |(by, status, _): &(GatewayId, PresenceStatus, u64)| {
                *status != PresenceStatus::Offline && silent.contains(by)
            };
            if known.words.iter().any(is_there) {
                have_answered = false;
                looked_at += known.conversations.len();
                let told_in = (&*known.conversations, known.named_at);
                self.give_in(ids, told_in, |one| give(one, account));
            }
            if looked_at >= most {
                return false;
            }
        }
        have_answered
    }

    /// Gives those of the conversations in which a user was named that are asked for. Says whether it is known of each whether it left since.
    fn give_in(
        &self,
        ids: &FxHashSet<ConversationId>,
        (named_in, named_at): (&[MemberOf], u64),
        mut give: impl FnMut(MemberOf),
    ) -> bool {
        let mut are_all = true;
        for one in named_in
            .iter()
            .filter(|one| ids.contains(&one.conversation))
        {
            if self.hostings.heard_since(*one, named_at) {
                give(*one);
            } else {
                are_all = false;
            }
        }
        are_all
    }

    /// Gives each of these conversations with each of its members that has no session and may come back. Looks at about so many of their
    /// conversations; says whether these were all.
    pub(crate) fn lingering_in<'a>(
        &'a self,
        ids: &FxHashSet<ConversationId>,
        most: usize,
        mut give: impl FnMut(MemberOf, &'a Account),
    ) -> bool {
        let (mut looked_at, mut are_all) = (0, true);
        for (end, account) in &self.leaving {
            if looked_at >= most {
                return false;
            }
            looked_at += 1;
            let Some(known) = self.known.get(account) else {
                continue;
            };
            // One that came back and left again has its turn later.
            if known.gone_at.map(|at| at + self.grace) != Some(*end) {
                continue;
            }
            looked_at += known.conversations.len() + known.owed.len();
            for told_in in [&*known.conversations, &*known.owed] {
                let told_in = (told_in, known.named_at);
                are_all &= self.give_in(ids, told_in, |one| give(one, account));
            }
        }
        are_all
    }
}
