//! What presence asks of a shard about many conversations: looked at piece by piece, each with its answer so far.

use std::sync::Arc;
use std::vec;

use confab_protocol::fair::Owner;
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::MemberOf;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::shard::tell;
use crate::account::{Account, SessionKey};
use crate::hub::{Shard, SignalMembership};

/// Conversations and memberships that are looked at in one piece, about.
pub(super) const QUERY_STEP: usize = 256;
/// Members that one answer about a gateway's question may name: more than the gateway that asked takes.
pub(super) const MAX_MEMBERS: usize = 10_001;

/// Which of a user's conversations carry signals? Its sessions are looked at one by one.
pub(super) struct CarryingQuery {
    account: Arc<Account>,
    /// None before the first piece.
    rest: Option<Vec<SessionKey>>,
    carrying: FxHashMap<ConversationId, SignalMembership>,
    are_counted: bool,
    answer: oneshot::Sender<CarryingOf>,
}

/// Those of a user's conversations that carry signals.
#[derive(Debug, Default)]
pub(super) struct CarryingOf {
    pub(super) conversations: Vec<(ConversationId, SignalMembership)>,
    /// Whether it is known how large the others are, and that the user is still a member.
    pub(super) are_counted: bool,
}

impl CarryingOf {
    /// Where what is said of the user is to be told.
    pub(super) fn member_of(self) -> Vec<MemberOf> {
        let named = self.conversations.into_iter();
        let named = named.map(|(conversation, SignalMembership { as_of, .. })| MemberOf {
            conversation,
            as_of,
        });
        named.collect()
    }
}

impl CarryingQuery {
    pub(super) fn new(account: Arc<Account>, answer: oneshot::Sender<CarryingOf>) -> Self {
        Self {
            account,
            rest: None,
            carrying: FxHashMap::default(),
            are_counted: true,
            answer,
        }
    }

    pub(super) fn owner(&self) -> Owner {
        self.account.owner()
    }

    /// What the next piece costs: a session's conversations.
    pub(super) fn cost(&self, shard: &Shard) -> usize {
        let next = self.rest.as_ref().and_then(|rest| rest.last());
        1 + next.map_or(0, |key| shard.conversations_of(*key))
    }

    /// Looks at a piece; gives the rest.
    pub(super) fn step(mut self, shard: &Shard) -> Option<Self> {
        let rest = self.rest.get_or_insert_with(|| shard.all_of(&self.account));
        if let Some(key) = rest.pop() {
            self.are_counted &= shard.carrying_in(key, &mut self.carrying);
        }
        if self.answer.is_closed() {
            return None;
        }
        if !rest.is_empty() {
            return Some(self);
        }
        let carrying = CarryingOf {
            conversations: self.carrying.into_iter().collect(),
            are_counted: self.are_counted,
        };
        tell(self.answer, carrying);
        None
    }
}

/// Which of these conversations have members here, and carry signals?
pub(super) struct HostingQuery {
    rest: vec::IntoIter<ConversationId>,
    hosted: Vec<(ConversationId, bool)>,
    answer: oneshot::Sender<Vec<(ConversationId, bool)>>,
}

impl HostingQuery {
    pub(super) fn new(
        ids: Vec<ConversationId>,
        answer: oneshot::Sender<Vec<(ConversationId, bool)>>,
    ) -> Self {
        Self {
            rest: ids.into_iter(),
            hosted: Vec::new(),
            answer,
        }
    }

    pub(super) fn cost(&self) -> usize {
        1 + self.rest.len().min(QUERY_STEP)
    }

    /// Looks at a piece; gives the rest.
    pub(super) fn step(mut self, shard: &Shard) -> Option<Self> {
        let piece = self.rest.by_ref().take(QUERY_STEP);
        let hosted = piece.filter_map(|id| Some((id, shard.carries(id)?)));
        self.hosted.extend(hosted);
        if self.answer.is_closed() {
            return None;
        }
        if self.rest.len() > 0 {
            return Some(self);
        }
        tell(self.answer, self.hosted);
        None
    }
}

/// Which members of these conversations have sessions here?
pub(super) struct MembersQuery {
    /// Whose share it counts in; the gateway's own where none is named.
    tenant: Option<TenantId>,
    rest: vec::IntoIter<ConversationId>,
    members: LocalMembers,
    answer: oneshot::Sender<LocalMembers>,
}

/// Members of conversations that have sessions here.
#[derive(Debug, Default)]
pub(super) struct LocalMembers {
    pub(super) members: Vec<(Arc<Account>, MemberOf)>,
    /// Whether there may be others, of whom it is not known whether they are still members.
    pub(super) are_unsure: bool,
}

impl MembersQuery {
    pub(super) fn new(
        tenant: Option<TenantId>,
        ids: Vec<ConversationId>,
        answer: oneshot::Sender<LocalMembers>,
    ) -> Self {
        Self {
            tenant,
            rest: ids.into_iter(),
            members: LocalMembers::default(),
            answer,
        }
    }

    pub(super) fn owner(&self) -> Option<Owner> {
        self.tenant.as_ref().and_then(Owner::of_tenant)
    }

    /// What the next piece costs: its conversations, and their memberships.
    pub(super) fn cost(&self, shard: &Shard) -> usize {
        let mut cost = 1;
        for id in self.rest.as_slice() {
            if cost > QUERY_STEP {
                break;
            }
            cost += shard.cost_of_members(*id);
        }
        cost
    }

    /// Looks at a piece; gives the rest. Members beyond those that an answer may name are not looked for.
    pub(super) fn step(mut self, shard: &Shard) -> Option<Self> {
        let mut cost = 1;
        while cost <= QUERY_STEP
            && let Some(id) = self.rest.next()
        {
            cost += shard.cost_of_members(id);
            let here = shard.members_here(id);
            let member_of = MemberOf {
                conversation: id,
                as_of: here.as_of,
            };
            let accounts = here.accounts.into_iter();
            let named = accounts.map(|account| (account, member_of));
            self.members.members.extend(named);
            self.members.are_unsure |= !here.is_whole;
        }
        if self.answer.is_closed() {
            return None;
        }
        if self.rest.len() > 0 && self.members.members.len() < MAX_MEMBERS {
            return Some(self);
        }
        tell(self.answer, self.members);
        None
    }
}
