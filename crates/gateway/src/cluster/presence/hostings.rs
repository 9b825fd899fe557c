//! Since when conversations have members here, and who left them: who left one while it had none was not heard to leave.

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::MemberOf;
use rustc_hash::FxHashMap;

use crate::account::Account;

/// Conversations of which that is remembered, and leaves.
const MAX_HOSTINGS: usize = if cfg!(test) { 4 } else { 256 * 1024 };
const MAX_LEAVES: usize = if cfg!(test) { 4 } else { 64 * 1024 };

/// Behind which events conversations had their first member here.
#[derive(Debug, Default)]
pub(super) struct Hostings {
    /// The last seq that nobody here heard.
    unheard: FxHashMap<ConversationId, Seq>,
    /// By which event users left conversations, and how many of these there are.
    left: FxHashMap<Account, FxHashMap<ConversationId, Seq>>,
    leaves: usize,
    /// Grows with everything that is heard of users.
    clock: u64,
    /// What was heard before counts for none: more conversations came than are remembered.
    forgot: u64,
}

impl Hostings {
    /// Something is heard now.
    pub(super) const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A conversation has its first member here, behind an event that nobody heard.
    pub(super) fn begin(&mut self, id: ConversationId, unheard: Seq) {
        if self.unheard.len() >= MAX_HOSTINGS && !self.unheard.contains_key(&id) {
            self.forget();
        }
        self.unheard.insert(id, unheard);
    }

    /// Any conversation may have its first member here.
    pub(super) fn forget(&mut self) {
        (self.unheard, self.left, self.leaves) = Default::default();
        self.forgot = self.tick();
    }

    /// A user left a conversation by an event that was heard here.
    pub(super) fn leave(&mut self, account: Account, id: ConversationId, seq: Seq) {
        if self.leaves >= MAX_LEAVES {
            self.forget();
        }
        let is_first = self
            .left
            .entry(account)
            .or_default()
            .insert(id, seq)
            .is_none();
        self.leaves += usize::from(is_first);
    }

    /// Whether a user was heard to leave since it was a member so.
    pub(super) fn is_over(&self, account: &Account, member_of: MemberOf) -> bool {
        let of = self.left.get(account);
        let left = of.and_then(|of| of.get(&member_of.conversation));
        left.is_some_and(|left| *left > member_of.as_of)
    }

    /// Up to where a user is a member who was not heard to leave: up to the newest event that was heard here, where everything since was.
    pub(super) fn up_to_here(&self, member_of: MemberOf, named_at: u64) -> MemberOf {
        let as_of = if self.heard_since(member_of, named_at) {
            Seq::MAX
        } else {
            member_of.as_of
        };
        MemberOf { as_of, ..member_of }
    }

    /// Whether everything that happened since a user was a member was heard here, by what was heard of the user `named_at`.
    pub(super) fn heard_since(&self, member_of: MemberOf, named_at: u64) -> bool {
        let unheard = self.unheard.get(&member_of.conversation);
        named_at > self.forgot && unheard.is_none_or(|unheard| *unheard <= member_of.as_of)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn member_before_hosting_may_have_left() {
        let id = |n| ConversationId(Uuid::from_u128(n));
        let member_of = |n, as_of| MemberOf {
            conversation: id(n),
            as_of,
        };
        let mut hostings = Hostings::default();
        let now = hostings.tick();
        hostings.begin(id(1), 7);
        assert!(!hostings.heard_since(member_of(1, 6), now));
        assert!(hostings.heard_since(member_of(1, 7), now));
        assert!(hostings.heard_since(member_of(2, 6), now));
        for n in 2..=5 {
            hostings.begin(id(n), 1);
        }
        assert!(!hostings.heard_since(member_of(9, 8), now), "one too many");
        let behind = hostings.tick();
        assert!(hostings.heard_since(member_of(9, 8), behind));
        assert!(hostings.unheard.len() <= MAX_HOSTINGS);
    }

    #[test]
    fn leaves_are_remembered_up_to_a_bound() {
        let account = Account {
            tenant: "t".parse().unwrap(),
            user: "ann".parse().unwrap(),
        };
        let member_of = |n| MemberOf {
            conversation: ConversationId(Uuid::from_u128(n)),
            as_of: 6,
        };
        let mut hostings = Hostings::default();
        let named_at = hostings.tick();
        for n in 0..4 {
            hostings.leave(account.clone(), member_of(n).conversation, 7);
        }
        assert!(hostings.is_over(&account, member_of(0)));
        assert!(hostings.heard_since(member_of(9), named_at));
        hostings.leave(account.clone(), member_of(4).conversation, 7);
        assert!(!hostings.is_over(&account, member_of(0)));
        assert!(!hostings.heard_since(member_of(9), named_at), "forgotten");
        assert_eq!((hostings.leaves, hostings.left[&account].len()), (1, 1));
    }
}
