//! Changes of presence on their way to those who share a conversation with the user, from shard to shard.

use std::collections::VecDeque;

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::Presence;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::account::Account;
use crate::hub::{PresenceChange, Shards};

/// What is told in turn: of each user the newest change only.
#[derive(Debug, Default)]
pub(super) struct PresenceChanges {
    order: VecDeque<Account>,
    by_user: FxHashMap<Account, Box<PresenceChange>>,
}

impl PresenceChanges {
    /// Takes a change, in the place of an older one of the same user that is not told everywhere yet: it is told there as well.
    pub(super) fn push(&mut self, presence: Presence, shards: Shards) {
        let account = Account {
            tenant: presence.tenant.clone(),
            user: presence.user.clone(),
        };
        let Some(telling) = PresenceChange::new(presence, shards) else {
            return;
        };
        let mut telling = Box::new(telling);
        match self.by_user.remove(&account) {
            Some(older) => telling.take_over(*older),
            None => self.order.push_back(account.clone()),
        }
        self.by_user.insert(account, telling);
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Box<PresenceChange>> {
        let account = self.order.pop_front()?;
        self.by_user.remove(&account)
    }

    /// One that was told in some shard: others have their turn before the rest of it. A newer one of the user is told there instead.
    pub(super) fn push_back(&mut self, telling: Box<PresenceChange>) {
        if telling.next_shard().is_none() {
            return;
        }
        let account = telling.account();
        if let Some(newer) = self.by_user.get_mut(&account) {
            newer.take_over(*telling);
        } else {
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
pub(super) struct WantedConversations {
    order: Vec<ConversationId>,
    ids: FxHashSet<ConversationId>,
}

impl WantedConversations {
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

#[cfg(test)]
mod tests {
    use confab_protocol::signal::{MemberOf, PresenceStatus};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn newer_change_replaces_untold_one() {
        let change = |status, ids: &[u128]| {
            let of = ids.iter().map(|n| MemberOf {
                conversation: ConversationId(Uuid::from_u128(*n)),
                as_of: 1,
            });
            Presence::new("t".parse().unwrap(), "ann".parse().unwrap(), status, of)
        };
        for is_on_its_way in [false, true] {
            let mut tellings = PresenceChanges::default();
            tellings.push(change(PresenceStatus::Online, &[1, 2]), Shards::SINGLE);
            let older = is_on_its_way.then(|| tellings.pop().unwrap());
            tellings.push(change(PresenceStatus::Away, &[2, 3]), Shards::SINGLE);
            if let Some(older) = older {
                tellings.push_back(older);
            }
            let telling = tellings.pop().unwrap();
            let mut ids: Vec<_> = telling.rest_in(0).map(|id| id.0.as_u128()).collect();
            ids.sort_unstable();
            assert_eq!(ids, [1, 2, 3]);
            assert!(tellings.pop().is_none() && tellings.is_empty());
        }
    }
}
