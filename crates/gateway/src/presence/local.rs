//! What this gateway says of its own users.

use std::sync::Arc;
use std::time::Instant;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::{Presence, PresenceStatus};
use rustc_hash::FxHashSet;

use super::{AT_ONCE, PAUSE, Presences, STEP_CONVERSATIONS, Said, Word};
use crate::hub::{Account, SessionKey};

/// A user with sessions here, or lately.
#[derive(Debug, Default)]
pub(super) struct Local {
    sessions: Vec<(SessionKey, PresenceStatus)>,
    /// What was said last, when, and where it was to be told.
    pub(super) said: Option<PresenceStatus>,
    spoke: Option<Instant>,
    conversations: Arc<[ConversationId]>,
    /// In which conversations a change that is not said yet came about; none where it is to be told in all.
    changed_in: Option<Vec<ConversationId>>,
    /// Conversations that came behind that change.
    since: Vec<ConversationId>,
    /// Whether it stands in the queue of those of whom something may be to say.
    queued: bool,
    /// Whether it is to be said although it did not change.
    repeat: bool,
}

impl Local {
    /// What the user's sessions say together.
    fn status(&self) -> PresenceStatus {
        let statuses = self.sessions.iter().map(|(_, status)| *status);
        statuses.max().unwrap_or(PresenceStatus::Offline)
    }

    /// The status changed: in all conversations of now. Behind a change that is not said yet only those that came since are new.
    fn changed(&mut self, conversations: impl FnOnce() -> Vec<ConversationId>) {
        match &mut self.changed_in {
            Some(changed_in) => changed_in.append(&mut self.since),
            None => {
                self.since.clear();
                self.changed_in = Some(conversations());
            }
        }
    }

    /// Those of `conversations` in which the change that is said now is to be told; whether others are left.
    fn take_changed_in(
        &mut self,
        conversations: Vec<ConversationId>,
    ) -> (Vec<ConversationId>, bool) {
        self.since = Vec::new();
        let Some(changed_in) = self.changed_in.take() else {
            return (conversations, false);
        };
        let before: FxHashSet<_> = changed_in.into_iter().collect();
        let count = conversations.len();
        let told = conversations.into_iter().filter(|id| before.contains(id));
        let told: Vec<_> = told.collect();
        let others = told.len() < count;
        (told, others)
    }
}

impl Presences {
    /// A session of a user is open, with what it says: one that goes on says what it said before. `conversations_of` gives
    /// those of a user's conversations in which it may be told: in those that come later it is no change.
    pub(crate) fn opened_with(
        &mut self,
        key: SessionKey,
        account: &Arc<Account>,
        status: PresenceStatus,
        conversations_of: impl Fn(&Account) -> Vec<ConversationId>,
    ) {
        self.sessions.insert(key, Arc::clone(account));
        let local = self.locals.entry(Arc::clone(account)).or_default();
        let before = local.status();
        local.sessions.push((key, status));
        if local.status() != before {
            local.changed(|| conversations_of(account));
        }
        self.say_of(account, Word::Change);
    }

    /// A session says whether its user is there.
    pub(crate) fn set(
        &mut self,
        key: SessionKey,
        status: PresenceStatus,
        conversations_of: impl Fn(&Account) -> Vec<ConversationId>,
    ) {
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
        local.changed(|| conversations_of(&account));
        self.say_of(&account, Word::Change);
    }

    /// A session of a user has a new conversation: those who do not know what is said of the user are told.
    pub(crate) fn joined(&mut self, account: &Account, conversation: ConversationId) {
        if let Some(local) = self.locals.get_mut(account)
            && local.changed_in.is_some()
        {
            local.since.push(conversation);
        }
        self.repeat(account);
    }

    /// Whether a session says something else than before.
    pub(crate) fn is_change(&self, key: SessionKey, status: PresenceStatus) -> bool {
        let account = self.sessions.get(&key);
        let local = account.and_then(|account| self.locals.get(account));
        let said = local.and_then(|local| local.sessions.iter().find(|(other, _)| *other == key));
        said.is_some_and(|(_, said)| *said != status)
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
                local.changed_in = None;
                local.since.clear();
            }
        }
        self.say_of(&account, Word::Change);
    }

    /// Something may be to say of a user.
    pub(super) fn say_of(&mut self, account: &Arc<Account>, word: Word) {
        if let Some(local) = self.locals.get_mut(account) {
            local.repeat |= word == Word::Repeat;
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

    /// What is to be said since this was last asked, or a step of it: then [`Self::is_saying`]. `conversations_of` gives those of a
    /// user's conversations in which it may be told.
    pub(crate) fn say(
        &mut self,
        now: Instant,
        conversations_of: impl Fn(&Account) -> Vec<ConversationId>,
    ) -> Said {
        let mut said = Said::default();
        if self.pass == 0 {
            self.pass = self.unsaid.len();
        }
        let mut conversations = 0;
        for _ in 0..AT_ONCE {
            if self.pass == 0 || conversations >= STEP_CONVERSATIONS {
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
            if local.spoke.is_some_and(|at| now < at + PAUSE) {
                self.unsaid.push_back(account);
                continue;
            }
            local.queued = false;
            let status = local.status();
            let repeat = std::mem::take(&mut local.repeat);
            let before = local.said.unwrap_or(PresenceStatus::Offline);
            if status == before {
                (local.changed_in, local.since) = (None, Vec::new());
            }
            if status == before && (!repeat || status == PresenceStatus::Offline) {
                if local.sessions.is_empty() {
                    self.locals.remove(&account);
                }
                continue;
            }
            let mut others = false;
            if status != PresenceStatus::Offline {
                let all = conversations_of(&account);
                conversations += all.len();
                let told;
                (told, others) = local.take_changed_in(all);
                local.conversations = told.into();
            }
            (local.said, local.spoke) = (Some(status), Some(now));
            let here = Arc::clone(&local.conversations);
            let presence = Presence {
                tenant: account.tenant.clone(),
                user: account.user.clone(),
                status,
                conversations: local.conversations.to_vec(),
            };
            let word = if status == before {
                Word::Repeat
            } else {
                Word::Change
            };
            if status == PresenceStatus::Offline {
                // So that it is forgotten when its second is over.
                self.say_of(&account, Word::Change);
            }
            if others {
                // In the conversations that came since it changed, it is no news.
                self.say_of(&account, Word::Repeat);
            }
            self.note(&account, (self.own, status), word, here);
            self.settle(&account, now);
            match word {
                Word::Change => said.changes.push(presence),
                Word::Repeat => said.repeats.push(presence),
            }
        }
        said
    }
}
