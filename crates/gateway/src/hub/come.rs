//! Who came lately: conversations with their first members here, and users with new conversations.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq, TenantId};
use rustc_hash::FxHashSet;

use crate::account::Account;

/// Conversations, and as many users, that are remembered until someone asks.
const MAX_COME: usize = 16 * 1024;

/// Who came since someone last asked.
#[derive(Debug, Default)]
pub(crate) struct NewMembers {
    /// The conversations that have their first members here, with their tenants, and the last seq of their logs that was not heard here.
    pub(crate) hosted: Vec<(TenantId, ConversationId, Seq)>,
    /// The users with new conversations.
    pub(crate) joined: Vec<(Arc<Account>, ConversationId)>,
    /// The users with conversations that carry presence since a worker said how large they are.
    pub(crate) counted: FxHashSet<Arc<Account>>,
    /// The users who left a conversation that carries presence, and by which event.
    pub(crate) left: Vec<(Account, ConversationId, Seq)>,
    /// Whether there were more of any than is remembered: then anyone may have come.
    pub(crate) is_cut: bool,
}

impl NewMembers {
    /// A conversation has its first member here.
    pub(super) fn hosts(&mut self, tenant: TenantId, id: ConversationId, unheard: Seq) {
        if self.hosted.len() < MAX_COME {
            self.hosted.push((tenant, id, unheard));
        } else {
            self.is_cut = true;
        }
    }

    /// A session of a user has a new conversation.
    pub(super) fn joins(&mut self, account: &Arc<Account>, id: ConversationId) {
        if self.joined.len() < MAX_COME {
            self.joined.push((Arc::clone(account), id));
        } else {
            self.is_cut = true;
        }
    }

    /// It is known since now that a conversation of a user carries presence.
    pub(super) fn counts(&mut self, account: &Arc<Account>) {
        if self.counted.len() < MAX_COME {
            self.counted.insert(Arc::clone(account));
        } else {
            self.is_cut |= !self.counted.contains(account);
        }
    }

    /// A user left a conversation.
    pub(super) fn leaves(&mut self, account: Account, id: ConversationId, seq: Seq) {
        if self.left.len() < MAX_COME {
            self.left.push((account, id, seq));
        } else {
            self.is_cut = true;
        }
    }

    /// Whether anyone came, or went.
    pub(crate) fn is_empty(&self) -> bool {
        let came_none = self.hosted.is_empty() && self.joined.is_empty();
        came_none && self.counted.is_empty() && self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_comes_is_remembered_up_to_a_bound() {
        let account = Arc::new(Account {
            tenant: "t".parse().unwrap(),
            user: "ann".parse().unwrap(),
        });
        let mut come = NewMembers::default();
        for n in 0..2 * MAX_COME {
            let id = ConversationId(Uuid::from_u128(n as u128));
            come.hosts(account.tenant.clone(), id, 1);
            come.joins(&account, id);
            assert_eq!(come.is_cut, n >= MAX_COME);
        }
        assert_eq!((come.hosted.len(), come.joined.len()), (MAX_COME, MAX_COME));
    }
}
