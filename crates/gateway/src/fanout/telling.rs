//! Changes of presence on their way to those who share a conversation with the user, from shard to shard.

use std::collections::VecDeque;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::Presence;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::hub::{Account, Shards, Telling};

/// What is told in turn: of each user the newest change only.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    order: VecDeque<Account>,
    by_user: FxHashMap<Account, Box<Telling>>,
}

impl Tellings {
    /// Takes a change, in the place of an older one of the same user that is not told everywhere yet.
    pub(super) fn push(&mut self, presence: Presence, shards: Shards) {
        let account = Account {
            tenant: presence.tenant.clone(),
            user: presence.user.clone(),
        };
        let Some(telling) = Telling::new(presence, shards) else {
            return;
        };
        let telling = Box::new(telling);
        if self.by_user.insert(account.clone(), telling).is_none() {
            self.order.push_back(account);
        }
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Box<Telling>> {
        let account = self.order.pop_front()?;
        self.by_user.remove(&account)
    }

    /// One that was told in some shard: others have their turn before the rest of it.
    pub(super) fn push_back(&mut self, telling: Box<Telling>) {
        if telling.next_shard().is_none() {
            return;
        }
        let account = telling.account();
        if !self.by_user.contains_key(&account) {
            self.order.push_back(account.clone());
            self.by_user.insert(account, telling);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Conversations of which other gateways want the presence of the members here, each once.
#[derive(Debug, Default)]
pub(super) struct AskedFor {
    order: Vec<ConversationId>,
    ids: FxHashSet<ConversationId>,
}

impl AskedFor {
    pub(super) fn extend(&mut self, ids: impl Iterator<Item = ConversationId>) {
        self.order.extend(ids.filter(|id| self.ids.insert(*id)));
    }

    pub(super) fn pop(&mut self) -> Option<ConversationId> {
        let id = self.order.pop()?;
        self.ids.remove(&id);
        Some(id)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
