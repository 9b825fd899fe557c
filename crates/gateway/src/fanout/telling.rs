//! Changes of presence on their way to those who share a conversation with the user, a few conversations a turn.

use std::collections::VecDeque;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::Presence;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::hub::{Account, Hub, Telling};

/// What is told in turn: of each user the newest change only.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    order: VecDeque<Account>,
    by_user: FxHashMap<Account, Telling>,
}

impl Tellings {
    /// Takes a change, in the place of an older one of the same user that is not told everywhere yet.
    pub(super) fn push(&mut self, presence: Presence) {
        let account = Account {
            tenant: presence.tenant.clone(),
            user: presence.user.clone(),
        };
        let Some(telling) = Telling::new(presence) else {
            return;
        };
        if self.by_user.insert(account.clone(), telling).is_none() {
            self.order.push_back(account);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Tells about so many sessions, or a conversation's more.
    pub(super) fn tell(&mut self, hub: &Hub, sessions: usize) {
        let mut room = sessions;
        while room > 0
            && let Some(account) = self.order.pop_front()
        {
            let Some(telling) = self.by_user.get_mut(&account) else {
                continue;
            };
            room = room.saturating_sub(hub.tell(telling, room));
            if telling.is_over() {
                self.by_user.remove(&account);
            } else {
                // Others have their turn before the rest of its conversations.
                self.order.push_back(account);
            }
        }
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
