//! What this gateway says of its own users.

use std::sync::Arc;
use std::time::Instant;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::{Presence, PresenceStatus};

use super::{AT_ONCE, PAUSE, Presences, Said, Word};
use crate::hub::{Account, SessionKey};

/// A user with sessions here, or lately.
#[derive(Debug, Default)]
pub(super) struct Local {
    sessions: Vec<(SessionKey, PresenceStatus)>,
    /// What was said last, when, and where it was to be told.
    pub(super) said: Option<PresenceStatus>,
    spoke: Option<Instant>,
    conversations: Vec<ConversationId>,
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
}

impl Presences {
    /// A session of a user is open, and online.
    pub(crate) fn opened(&mut self, key: SessionKey, account: &Arc<Account>) {
        self.sessions.insert(key, Arc::clone(account));
        let local = self.locals.entry(Arc::clone(account)).or_default();
        local.sessions.push((key, PresenceStatus::Online));
        self.say_of(account, Word::Change);
    }

    /// A session says whether its user is there.
    pub(crate) fn set(&mut self, key: SessionKey, status: PresenceStatus) {
        let Some(account) = self.sessions.get(&key).cloned() else {
            return;
        };
        if let Some(local) = self.locals.get_mut(&account) {
            let session = local.sessions.iter_mut().find(|(other, _)| *other == key);
            if let Some((_, before)) = session {
                *before = status;
            }
        }
        self.say_of(&account, Word::Change);
    }

    /// A session ended.
    pub(crate) fn closed(&mut self, key: SessionKey) {
        let Some(account) = self.sessions.remove(&key) else {
            return;
        };
        if let Some(local) = self.locals.get_mut(&account) {
            local.sessions.retain(|(other, _)| *other != key);
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

    /// What is to be said since this was last asked. `conversations_of` gives those of a user's conversations in which it
    /// may be told.
    pub(crate) fn say(
        &mut self,
        now: Instant,
        conversations_of: impl Fn(&Account) -> Vec<ConversationId>,
    ) -> Said {
        let mut said = Said::default();
        for _ in 0..AT_ONCE.min(self.unsaid.len()) {
            let Some(account) = self.unsaid.pop_front() else {
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
            if status == before && (!repeat || status == PresenceStatus::Offline) {
                if local.sessions.is_empty() {
                    self.locals.remove(&account);
                }
                continue;
            }
            if status != PresenceStatus::Offline {
                local.conversations = conversations_of(&account);
            }
            (local.said, local.spoke) = (Some(status), Some(now));
            let presence = Presence {
                tenant: account.tenant.clone(),
                user: account.user.clone(),
                status,
                conversations: local.conversations.clone(),
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
            let here = presence.conversations.clone();
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
