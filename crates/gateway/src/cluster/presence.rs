//! Who is there: what this gateway's sessions and the other gateways say of users, and what is told of it. No IO; the time
//! is a value.
//!
//! Each gateway has one word on each of its users; the highest of all words counts. A word ends by another, or with its
//! gateway. Without any word a user is offline, which is told after a grace period, so that who reconnects was never away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::GatewayId;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::{MemberOf, Presence, PresenceStatus};
use rustc_hash::FxHashMap;

use crate::account::{Account, SessionKey};

mod answers;
mod directory;
mod gateways;
mod hostings;
mod known;
mod local;

pub(crate) use answers::Answer;
use answers::ConcurrentChanges;
pub(crate) use directory::PresenceDirectory;
use gateways::PeerGateways;
use hostings::Hostings;
use known::Known;
use local::Local;

/// A gateway's words on one user: one a second, the newest winning.
const MIN_UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// Users that are looked at in one step, whether something is to be said, and how many conversations of theirs, about.
const AT_ONCE: usize = 2000;
const STEP_CONVERSATIONS: usize = 4096;
/// Users that are looked at at once, whether any of their conversations is still here.
const SWEEP_USERS: usize = 1000;
/// How long it is remembered that a user was told to be offline: its gateway may only be cut off, or not know its conversations yet.
const OFFLINE_MEMORY: Duration = Duration::from_secs(600);
/// After how long an end is said once more: whoever was cut off for less than a gateway takes to count as dead missed it and believes the
/// word before.
const END_REPEAT_DELAY: Duration = Duration::from_secs(8);
/// Ends that this gateway remembers: its own, to say them again when it was cut off itself, and those that it told.
const MAX_ENDS: usize = 10_000;
/// Users that are known; of more nothing is told.
const MAX_KNOWN_USERS: usize = 200_000;

/// What is known of everyone who shares a conversation with a session here.
#[derive(Debug)]
pub(crate) struct Presences {
    own: GatewayId,
    grace: Duration,
    sessions: FxHashMap<SessionKey, Arc<Account>>,
    locals: FxHashMap<Arc<Account>, Local>,
    /// Local users of whom something may be to say, and how many of them this pass has not looked at yet.
    unsaid: VecDeque<Arc<Account>>,
    pass: usize,
    /// Users who were told to be offline, the first one longest ago: no more than are remembered.
    offline: VecDeque<Arc<Account>>,
    /// Users whose end was said here and not once more yet, and those of whom it was, by when it was said first.
    ended: VecDeque<(Instant, Arc<Account>)>,
    said_twice: VecDeque<(Instant, Arc<Account>)>,
    /// Users whose end is to be said again.
    ends_again: VecDeque<Arc<Account>>,
    known: FxHashMap<Arc<Account>, Known>,
    /// Every known user once, by number, in the order in which they are swept.
    swept: VecDeque<(u64, Arc<Account>)>,
    /// Grows with every user that becomes known.
    numbers: u64,
    /// Users who may be offline then. All wait as long, so the first to begin is the first to end.
    leaving: VecDeque<(Instant, Arc<Account>)>,
    speakers: PeerGateways,
    /// When a gateway died last that had sessions.
    lost_at: Option<Instant>,
    concurrent: ConcurrentChanges,
    hostings: Hostings,
    /// What is to be told here.
    told: Vec<Presence>,
}

/// What this gateway says to the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceUpdates {
    /// What changed.
    pub(crate) changes: Vec<Presence>,
    /// What did not, for those who do not know it.
    pub(crate) repeats: Vec<Presence>,
    /// What did not either, for those who were not told when it did.
    pub(crate) unheard: Vec<Presence>,
}

/// Whether a word is news, or for those who do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateKind {
    /// It changed.
    Change,
    /// It did not: whoever did not know it takes note and tells nobody.
    Repeat,
    /// As a repeat, of some of the user's conversations.
    Answer,
    /// As an answer, of a gateway that counted as dead until a moment ago: nobody was told of those who were not known before.
    LateAnswer,
    /// It did not, and those of whom it matters may not know it: they are told.
    Unheard,
}

impl Presences {
    /// Nobody is there yet.
    pub(crate) fn new(own: GatewayId, grace: Duration) -> Self {
        Self {
            own,
            grace,
            sessions: FxHashMap::default(),
            locals: FxHashMap::default(),
            unsaid: VecDeque::new(),
            pass: 0,
            offline: VecDeque::new(),
            ended: VecDeque::new(),
            said_twice: VecDeque::new(),
            ends_again: VecDeque::new(),
            known: FxHashMap::default(),
            swept: VecDeque::new(),
            numbers: 0,
            leaving: VecDeque::new(),
            speakers: PeerGateways::default(),
            lost_at: None,
            concurrent: ConcurrentChanges::default(),
            hostings: Hostings::default(),
            told: Vec::new(),
        }
    }

    /// A gateway said something of a user, in a message with this number. `carries` says whether a conversation carries signals; none of one without
    /// members here.
    pub(crate) fn heard(
        &mut self,
        (gateway, number): (GatewayId, u64),
        presence: &Presence,
        word: UpdateKind,
        now: Instant,
        carries: impl Fn(ConversationId) -> Option<bool>,
    ) {
        if gateway == self.own {
            return;
        }
        // While it counted as dead, its users did as gone, and of those who were not known here nothing is remembered.
        let is_back = self.speakers.spoke(gateway, now);
        let word = if is_back && word == UpdateKind::Answer {
            UpdateKind::LateAnswer
        } else {
            word
        };
        let account = account_of(presence);
        // Whoever says that a user is gone does not know that it is here as well.
        let is_end = presence.status == PresenceStatus::Offline;
        if is_end {
            self.concurrent.note(gateway, &account, number);
            self.repeat(&account);
        }
        let is_told_in = |id| carries(id).is_some_and(|carries| carries || is_end);
        let here = self.lasting_in(&account, presence, is_told_in);
        let is_here = |id| carries(id).is_some();
        let said = (gateway, presence.status, number);
        if let Some(unknown_in) = self.note(&account, said, word, &here, is_here) {
            let is_repeat = word == UpdateKind::Repeat;
            let unknown_in = if is_back && is_repeat {
                &here
            } else {
                &unknown_in
            };
            self.settle(&account, unknown_in, now);
        }
    }

    /// Those of a word's conversations that count here and that the user was not heard to leave since.
    fn lasting_in(
        &self,
        account: &Account,
        presence: &Presence,
        counts: impl Fn(ConversationId) -> bool,
    ) -> Vec<MemberOf> {
        let here = presence.member_of();
        let here = here.filter(|one| counts(one.conversation));
        here.filter(|one| !self.hostings.is_over(account, *one))
            .collect()
    }

    /// The conversations here in which changes of these users are told, or their end.
    pub(crate) fn told_in<'a>(
        &'a self,
        accounts: impl Iterator<Item = &'a Account>,
    ) -> impl Iterator<Item = ConversationId> {
        let known = accounts.filter_map(|account| self.known.get(account));
        let told_in = known.flat_map(|known| known.conversations.iter().chain(&known.owed));
        told_in.map(|one| one.conversation)
    }

    /// Takes note of a gateway's word on a user, and of the conversations here in which it matters. Where it counts, gives those in which it is
    /// to be told although it is the same: nobody there was told.
    fn note(
        &mut self,
        account: &Arc<Account>,
        (gateway, status, number): (GatewayId, PresenceStatus, u64),
        word: UpdateKind,
        here: &[MemberOf],
        is_here: impl Fn(ConversationId) -> bool,
    ) -> Option<Vec<MemberOf>> {
        if here.is_empty() && !self.known.contains_key(account) || !self.know(account) {
            return None;
        }
        let known = self.known.get_mut(account)?;
        if !known.set(gateway, status, number) {
            return None;
        }
        let unknown_in = known.unknown_in(here, word);
        if status == PresenceStatus::Offline {
            // Those who were told that the user came are told that it left.
            known.owe_to(here);
        } else if matches!(word, UpdateKind::Answer | UpdateKind::LateAnswer) {
            known.extend_to(here);
        } else {
            known.move_to(here, is_here);
            known.named_at = self.hostings.tick();
        }
        if !matches!(word, UpdateKind::Change | UpdateKind::Unheard) && known.status.is_none() {
            known.status = Some(known.highest());
        }
        Some(unknown_in)
    }

    /// Whether a user is known, or is from now on.
    fn know(&mut self, account: &Arc<Account>) -> bool {
        if self.known.contains_key(account) {
            return true;
        }
        if self.known.len() >= MAX_KNOWN_USERS {
            return false;
        }
        self.numbers += 1;
        let number = self.numbers;
        let known = Known {
            number,
            named_at: self.hostings.tick(),
            ..Known::default()
        };
        self.known.insert(Arc::clone(account), known);
        self.swept.push_back((number, Arc::clone(account)));
        true
    }

    /// Tells what the words say now, where it is another than was told; else it is told in `unknown_in` alone.
    fn settle(&mut self, account: &Arc<Account>, unknown_in: &[MemberOf], now: Instant) {
        let Some(known) = self.known.get_mut(account) else {
            return;
        };
        let highest = known.highest();
        if highest == PresenceStatus::Offline {
            if known.gone_at.is_none() {
                known.gone_at = Some(now);
                self.leaving
                    .push_back((now + self.grace, Arc::clone(account)));
            }
            return;
        }
        let is_back = known.gone_at.take().is_some();
        let is_other = known.status.replace(highest) != Some(highest);
        if is_back || is_other || !unknown_in.is_empty() {
            let told_in = (&known.conversations, known.named_at);
            self.concurrent.came(account, told_in, now);
        }
        if is_other {
            self.told.push(known.tell(account, highest, &self.hostings));
        } else if !unknown_in.is_empty() {
            let (tenant, user) = (account.tenant.clone(), account.user.clone());
            let hostings = &self.hostings;
            let told_in = unknown_in.iter();
            let told_in = told_in.map(|one| hostings.up_to_here(*one, known.named_at));
            let word = Presence::new(tenant, user, highest, told_in);
            self.told.push(word);
        }
    }

    /// This gateway says of a user what it said before, for those who do not know it.
    pub(crate) fn repeat(&mut self, account: &Account) {
        if let Some((account, local)) = self.locals.get_key_value(account) {
            let account = Arc::clone(account);
            if local.said.is_some() {
                self.say_of(&account, UpdateKind::Repeat);
            }
        }
    }

    /// A conversation has its first member here, behind an event that nobody here heard.
    pub(crate) fn hosts(&mut self, id: ConversationId, unheard: Seq) {
        self.hostings.begin(id, unheard);
    }

    /// More conversations than are told had their first members here.
    pub(crate) fn hosts_many(&mut self) {
        self.hostings.forget();
    }

    /// A user left a conversation that has members here by this event: nothing more of it is told there, of which those who came since know
    /// nothing, unless it was heard already that it is a member again.
    pub(crate) fn left(&mut self, account: Account, id: ConversationId, seq: Seq) {
        if let Some(known) = self.known.get_mut(&account) {
            known.conversations = but_for(&known.conversations, id, seq);
            known
                .owed
                .retain(|one| one.conversation != id || one.as_of >= seq);
        }
        if let Some(local) = self.locals.get_mut(&account) {
            local.conversations = but_for(&local.conversations, id, seq);
        }
        self.hostings.leave(account, id, seq);
    }

    /// This gateway was cut off from the others: it repeats all that it says, and the ends that they may have missed.
    pub(crate) fn repeat_all(&mut self) {
        let ends = self.said_twice.iter().chain(&self.ended);
        self.ends_again = ends.map(|(_, account)| Arc::clone(account)).collect();
        let accounts: Vec<_> = self.locals.keys().cloned().collect();
        for account in accounts {
            self.repeat(&account);
        }
    }

    /// The gateways that live. The words of one that does no longer are forgotten. Says whether one is back that counted
    /// as dead: what it said was forgotten too early.
    pub(crate) fn alive(&mut self, alive: &[GatewayId], now: Instant) -> bool {
        let (dead, is_back) = self.speakers.compare(alive, now);
        if dead.is_empty() {
            return is_back;
        }
        let mut left = Vec::new();
        for (account, known) in &mut self.known {
            let before = known.words.len();
            let was_there = |(by, status, _): &(GatewayId, PresenceStatus, u64)| {
                *status != PresenceStatus::Offline && dead.contains(by)
            };
            if known.words.iter().any(was_there) {
                self.lost_at = Some(now);
            }
            known.words.retain(|(gateway, ..)| !dead.contains(gateway));
            if known.words.len() != before {
                if known.highest() == PresenceStatus::Offline {
                    known.words.clear();
                }
                left.push(Arc::clone(account));
            }
        }
        for account in left {
            self.settle(&account, &[], now);
        }
        is_back
    }

    /// What is to be told here since this was last asked: each to the members of its conversations, once.
    pub(crate) fn told(&mut self, now: Instant) -> Vec<Presence> {
        while let Some((end, account)) = self.leaving.pop_front_if(|(end, _)| *end <= now) {
            let Some(known) = self.known.get_mut(&account) else {
                continue;
            };
            if known.gone_at.map(|gone| gone + self.grace) != Some(end) {
                continue;
            }
            if known.status.replace(PresenceStatus::Offline) != Some(PresenceStatus::Offline) {
                let offline = known.tell(&account, PresenceStatus::Offline, &self.hostings);
                self.told.push(offline);
            }
            // A gateway that died may only be cut off, and one that did not know a user's conversations repeats its word when it does: whoever
            // was told otherwise is told then.
            self.offline.push_back(account);
            if self.offline.len() > MAX_ENDS {
                self.forget_first_offline();
            }
        }
        std::mem::take(&mut self.told)
    }

    /// Forgets who was told to be offline longest ago, where that is still so.
    fn forget_first_offline(&mut self) {
        let Some(account) = self.offline.pop_front() else {
            return;
        };
        let known = self.known.get(&account);
        if known.is_some_and(|known| known.status == Some(PresenceStatus::Offline)) {
            self.known.remove(&account);
        }
    }

    /// The conversations that the next sweep looks at. Those in which only the end is told count as well.
    pub(crate) fn to_sweep(&self) -> Vec<ConversationId> {
        let mut ids = Vec::new();
        for (number, account) in self.swept.iter().take(SWEEP_USERS) {
            if ids.len() >= STEP_CONVERSATIONS {
                break;
            }
            let known = self.known.get(account);
            let known = known.filter(|known| known.number == *number);
            if let Some(known) = known {
                let told = known.conversations.iter().chain(&known.owed);
                ids.extend(told.map(|one| one.conversation));
            }
        }
        ids
    }

    /// Forgets some of the users who are long offline, or share no conversation with a session here any more: `is_here` says it of each of
    /// [`Self::to_sweep`].
    pub(crate) fn sweep(&mut self, now: Instant, is_here: impl Fn(ConversationId) -> bool) {
        let mut conversations = 0;
        for _ in 0..SWEEP_USERS.min(self.swept.len()) {
            if conversations >= STEP_CONVERSATIONS {
                return;
            }
            let Some((number, account)) = self.swept.pop_front() else {
                return;
            };
            let known = self.known.get_mut(&account);
            let Some(known) = known.filter(|known| known.number == number) else {
                continue;
            };
            conversations += known.conversations.len() + known.owed.len();
            if known.is_lingering() {
                // Where nobody is here any more, it may be asked for.
                self.swept.push_back((number, account));
                continue;
            }
            let is_here = |one: &MemberOf| is_here(one.conversation);
            if !known.conversations.iter().all(is_here) {
                let here = known.conversations.iter().copied();
                known.conversations = here.filter(is_here).collect();
            }
            known.owed.retain(is_here);
            let is_nowhere = known.conversations.is_empty() && known.owed.is_empty();
            if is_nowhere || known.is_long_offline(now) {
                self.known.remove(&account);
            } else {
                self.swept.push_back((number, account));
            }
        }
    }
}

/// Whose word it is.
fn account_of(presence: &Presence) -> Arc<Account> {
    Arc::new(Account {
        tenant: presence.tenant.clone(),
        user: presence.user.clone(),
    })
}

/// All but a membership that ended with this event.
fn but_for(all: &[MemberOf], id: ConversationId, left: Seq) -> Arc<[MemberOf]> {
    let lasts = |one: &&MemberOf| one.conversation != id || one.as_of >= left;
    all.iter().filter(lasts).copied().collect()
}

#[cfg(test)]
mod tests;
