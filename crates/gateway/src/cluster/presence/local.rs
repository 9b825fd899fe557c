//! What this gateway says of its own users.

use std::sync::Arc;
use std::time::Instant;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::{MemberOf, Presence, PresenceStatus};
use rustc_hash::FxHashSet;

use super::{
    AT_ONCE, END_REPEAT_DELAY, MAX_ENDS, MAX_KNOWN_USERS, MIN_UPDATE_INTERVAL, OFFLINE_MEMORY,
    PresenceUpdates, Presences, STEP_CONVERSATIONS, UpdateKind,
};
use crate::account::{Account, SessionKey};

/// A user with sessions here, or lately.
#[derive(Debug, Default)]
pub(super) struct Local {
    sessions: Vec<(SessionKey, PresenceStatus)>,
    /// What was said last, when, and where it was to be told.
    pub(super) said: Option<PresenceStatus>,
    spoke: Option<Instant>,
    pub(super) conversations: Arc<[MemberOf]>,
    /// Whether a change is not said yet, which is to be told only in the conversations of when it came about.
    changed: bool,
    /// Conversations that came behind that change.
    since: Vec<ConversationId>,
    /// Whether it stands in the queue of those of whom something may be to say.
    queued: bool,
    /// Whether it is to be said although it did not change.
    repeat: bool,
    /// Whether that is news all the same: when it changed, nobody could be told.
    is_unheard: bool,
}

impl Local {
    /// What the user's sessions say together.
    pub(super) fn status(&self) -> PresenceStatus {
        let statuses = self.sessions.iter().map(|(_, status)| *status);
        statuses.max().unwrap_or(PresenceStatus::Offline)
    }

    /// The status changed: in all conversations of now.
    fn change(&mut self) {
        self.changed = true;
        self.since.clear();
    }

    /// Whether what is said now is news: it changed, or nobody could be told when it did.
    const fn take_word(&mut self, is_change: bool) -> UpdateKind {
        let is_unheard = std::mem::replace(&mut self.is_unheard, false);
        match (is_change, is_unheard) {
            (true, _) => UpdateKind::Change,
            (false, true) => UpdateKind::Unheard,
            (false, false) => UpdateKind::Repeat,
        }
    }

    /// What changed came to nothing.
    fn change_not(&mut self) {
        (self.changed, self.since) = (false, Vec::new());
    }

    /// Those of `conversations` in which what is said now is to be told; whether others are left.
    fn take_changed_in(&mut self, mut conversations: Vec<MemberOf>) -> (Vec<MemberOf>, bool) {
        let since: FxHashSet<_> = std::mem::take(&mut self.since).into_iter().collect();
        if !std::mem::take(&mut self.changed) || since.is_empty() {
            return (conversations, false);
        }
        let count = conversations.len();
        conversations.retain(|one| !since.contains(&one.conversation));
        let others = conversations.len() < count;
        (conversations, others)
    }
}

impl Presences {
    /// A session of a user is open, with what it says: one that goes on says what it said before.
    pub(crate) fn opened_with(
        &mut self,
        key: SessionKey,
        account: &Arc<Account>,
        status: PresenceStatus,
    ) {
        self.sessions.insert(key, Arc::clone(account));
        let local = self.locals.entry(Arc::clone(account)).or_default();
        let before = local.status();
        local.sessions.push((key, status));
        if local.status() != before {
            local.change();
        }
        // It may have left conversations while it was away, which nobody here heard of if it was the last member.
        let is_unsaid = |said: PresenceStatus| said != PresenceStatus::Offline;
        let is_back = before == PresenceStatus::Offline && local.said.is_some_and(is_unsaid);
        let word = if is_back {
            UpdateKind::Repeat
        } else {
            UpdateKind::Change
        };
        self.say_of(account, word);
    }

    /// A session says whether its user is there.
    pub(crate) fn set(&mut self, key: SessionKey, status: PresenceStatus) {
        let Some(account) = self.sessions.get(&key).cloned() else {
            return;
        };
        let Some(local) = self.locals.get_mut(&account) else {
            return;
        };
        let before = local.status();
        let session = local.sessions.iter_mut().find(|(other, _)| *other == key);
        if let Some((_, said)) = session {
            *said = status;
        }
        if local.status() == before {
            return;
        }
        local.change();
        self.say_of(&account, UpdateKind::Change);
    }

    /// A session of a user has a new conversation: those who do not know what is said of the user are told.
    pub(crate) fn joined(&mut self, account: &Account, conversation: ConversationId) {
        if let Some(local) = self.locals.get_mut(account)
            && local.changed
        {
            local.since.push(conversation);
        }
        self.repeat(account);
    }

    /// Conversations of a user carry presence since now: when it changed, nobody there was told.
    pub(crate) fn counted(&mut self, account: &Arc<Account>) {
        if let Some(local) = self.locals.get_mut(account) {
            local.is_unheard = true;
            self.say_of(account, UpdateKind::Repeat);
        }
    }

    /// A session ended.
    pub(crate) fn closed(&mut self, key: SessionKey) {
        let Some(account) = self.sessions.remove(&key) else {
            return;
        };
        if let Some(local) = self.locals.get_mut(&account) {
            let before = local.status();
            local.sessions.retain(|(other, _)| *other != key);
            if local.status() != before {
                local.change_not();
            }
        }
        self.say_of(&account, UpdateKind::Change);
    }

    /// Something may be to say of a user.
    pub(super) fn say_of(&mut self, account: &Arc<Account>, word: UpdateKind) {
        if let Some(local) = self.locals.get_mut(account) {
            local.repeat |= word == UpdateKind::Repeat;
            if !local.queued {
                local.queued = true;
                self.unsaid.push_back(Arc::clone(account));
            }
        }
    }

    /// Whether a pass through those of whom something may be to say has not come to its end.
    pub(crate) const fn is_saying(&self) -> bool {
        self.pass > 0
    }

    /// So many users of whom something may be said in the next step, fewer where they were told of in many conversations: of those
    /// [`Self::say`] is to know the conversations.
    pub(crate) fn to_say(&self, now: Instant, most: usize) -> Vec<Arc<Account>> {
        let pass = if self.pass == 0 {
            self.unsaid.len()
        } else {
            self.pass
        };
        let next = self.unsaid.iter().take(pass.min(AT_ONCE));
        let says = |account: &&Arc<Account>| {
            let local = self.locals.get(*account);
            local.is_some_and(|local| {
                let status = local.status();
                let before = local.said.unwrap_or(PresenceStatus::Offline);
                status != PresenceStatus::Offline
                    && (local.repeat || status != before)
                    && local.spoke.is_none_or(|at| now >= at + MIN_UPDATE_INTERVAL)
            })
        };
        let mut conversations = 0;
        let fits = |account: &&Arc<Account>| {
            let before = conversations;
            let local = self.locals.get(*account);
            conversations += local.map_or(0, |local| local.conversations.len());
            before < STEP_CONVERSATIONS
        };
        let next = next.filter(says).take(most);
        next.take_while(fits).cloned().collect()
    }

    /// An end is said, and later once more.
    fn note_end(&mut self, account: &Arc<Account>, now: Instant) {
        if self.ended.len() < MAX_KNOWN_USERS {
            self.ended.push_back((now, Arc::clone(account)));
        }
    }

    /// Some of the ends that are due to be said again. Of a user that is here again there is none.
    fn ends_again(&mut self, now: Instant) -> Vec<Presence> {
        while let Some(end) = self
            .ended
            .pop_front_if(|(at, _)| *at + END_REPEAT_DELAY <= now)
        {
            self.ends_again.push_back(Arc::clone(&end.1));
            self.said_twice.push_back(end);
        }
        let is_old = |at: Instant| now.duration_since(at) >= OFFLINE_MEMORY;
        while self.said_twice.len() > MAX_ENDS
            || self.said_twice.front().is_some_and(|(at, _)| is_old(*at))
        {
            self.said_twice.pop_front();
        }
        let next = self.ends_again.len().min(AT_ONCE);
        let next = self.ends_again.drain(..next);
        let locals = &self.locals;
        let is_gone = |account: &Arc<Account>| {
            let local = locals.get(account);
            local.is_none_or(|local| local.status() == PresenceStatus::Offline)
        };
        let end = |account: Arc<Account>| {
            let (tenant, user) = (account.tenant.clone(), account.user.clone());
            // Whoever was told that it is there knows where.
            Presence::new(tenant, user, PresenceStatus::Offline, [])
        };
        next.filter(is_gone).map(end).collect()
    }

    /// What is to be said since this was last asked, or a step of it: then [`Self::is_saying`]. `conversations_of` gives those of a
    /// user's conversations in which it may be told; none of a user that can only be asked for in a later step. `is_here` says which have members here.
    pub(crate) fn say(
        &mut self,
        now: Instant,
        conversations_of: impl Fn(&Account) -> Option<Vec<MemberOf>>,
        is_here: impl Fn(ConversationId) -> bool,
    ) -> PresenceUpdates {
        let mut said = PresenceUpdates {
            repeats: self.ends_again(now),
            ..PresenceUpdates::default()
        };
        if self.pass == 0 {
            self.pass = self.unsaid.len();
        }
        for _ in 0..AT_ONCE {
            if self.pass == 0 {
                break;
            }
            self.pass -= 1;
            let Some(account) = self.unsaid.pop_front() else {
                self.pass = 0;
                break;
            };
            let Some(local) = self.locals.get_mut(&account) else {
                continue;
            };
            if local.spoke.is_some_and(|at| now < at + MIN_UPDATE_INTERVAL) {
                self.unsaid.push_back(account);
                continue;
            }
            let status = local.status();
            let before = local.said.unwrap_or(PresenceStatus::Offline);
            let says = status != before || (local.repeat && status != PresenceStatus::Offline);
            let all = if says && status != PresenceStatus::Offline {
                conversations_of(&account)
            } else {
                Some(Vec::new())
            };
            let Some(all) = all else {
                self.unsaid.push_front(account);
                self.pass += 1;
                break;
            };
            (local.queued, local.repeat) = (false, false);
            if status == before {
                local.change_not();
            }
            if !says {
                if local.sessions.is_empty() {
                    self.locals.remove(&account);
                }
                continue;
            }
            let mut others = false;
            if status != PresenceStatus::Offline {
                let told;
                (told, others) = local.take_changed_in(all);
                local.conversations = told.into();
            }
            (local.said, local.spoke) = (Some(status), Some(now));
            let here = Arc::clone(&local.conversations);
            let (tenant, user) = (account.tenant.clone(), account.user.clone());
            let presence = Presence::new(tenant, user, status, here.iter().copied());
            let word = local.take_word(status != before);
            if status == PresenceStatus::Offline {
                self.note_end(&account, now);
                // So that it is forgotten when its second is over.
                self.say_of(&account, UpdateKind::Change);
            }
            if others {
                // In the conversations that came since it changed, it is no news.
                self.say_of(&account, UpdateKind::Repeat);
            }
            let own = (self.own, status, 0);
            let unknown_in = self.note(&account, own, word, &here, &is_here);
            self.settle(&account, &unknown_in.unwrap_or_default(), now);
            match word {
                UpdateKind::Change => said.changes.push(presence),
                UpdateKind::Unheard => said.unheard.push(presence),
                UpdateKind::Repeat | UpdateKind::Answer | UpdateKind::LateAnswer => {
                    said.repeats.push(presence);
                }
            }
        }
        said
    }
}
