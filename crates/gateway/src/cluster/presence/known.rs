//! What is known of one user: the words of gateways, where changes are told, and where only the end is.

use std::sync::Arc;
use std::time::Instant;

use confab_bus::GatewayId;
use confab_protocol::ids::ConversationId;
use confab_protocol::signal::{MemberOf, Presence, PresenceStatus};
use rustc_hash::{FxHashMap, FxHashSet};

use super::hostings::Hostings;
use super::{OFFLINE_MEMORY, UpdateKind};
use crate::account::Account;

/// A user that shares a conversation with a session here.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Tells the user from itself when it was forgotten and known again meanwhile.
    pub(super) number: u64,
    /// What each gateway says, and the number of the message in which it did.
    pub(super) words: Vec<(GatewayId, PresenceStatus, u64)>,
    /// The conversations here in which changes are told.
    pub(super) conversations: Arc<[MemberOf]>,
    /// When its gateway named them.
    pub(super) named_at: u64,
    /// Conversations here of which its gateway says nothing any more, since they grew too large or it is not sure of them, or of which it was
    /// not said before that: only the end is told.
    pub(super) owed: Vec<MemberOf>,
    /// What was told last, or was known without being told.
    pub(super) status: Option<PresenceStatus>,
    /// Since when no gateway has the user.
    pub(super) gone_at: Option<Instant>,
}

impl Known {
    pub(super) fn highest(&self) -> PresenceStatus {
        let words = self.words.iter().map(|(_, status, _)| *status);
        words.max().unwrap_or(PresenceStatus::Offline)
    }

    /// Whether it has no session anywhere, and may come back.
    pub(super) fn is_lingering(&self) -> bool {
        self.gone_at.is_some()
            && self
                .status
                .is_some_and(|said| said != PresenceStatus::Offline)
    }

    /// Whether nobody needs to know any more that the user was told to be offline.
    pub(super) fn is_long_offline(&self, now: Instant) -> bool {
        let is_gone = |gone: Instant| now.duration_since(gone) >= OFFLINE_MEMORY;
        self.status == Some(PresenceStatus::Offline) && self.gone_at.is_some_and(is_gone)
    }

    /// Takes a gateway's word; says whether it is not older than the one it replaces.
    pub(super) fn set(&mut self, gateway: GatewayId, status: PresenceStatus, number: u64) -> bool {
        let is_old = |(other, _, last): &(GatewayId, PresenceStatus, u64)| {
            *other == gateway && number != 0 && *last > number
        };
        if self.words.iter().any(is_old) {
            return false;
        }
        self.words.retain(|(other, ..)| *other != gateway);
        self.words.push((gateway, status, number));
        true
    }

    /// Where changes are told from now on. What was told where that is no more, in a conversation that `is_here`, is owed its end.
    pub(super) fn move_to(&mut self, here: &[MemberOf], is_here: impl Fn(ConversationId) -> bool) {
        let here = self.highest_of(here);
        let told = self.conversations.iter().chain(&self.owed);
        let by_id: FxHashMap<_, _> = told.map(|one| (one.conversation, *one)).collect();
        let ids: FxHashSet<_> = here.iter().map(|one| one.conversation).collect();
        let owed = by_id
            .into_iter()
            .filter(|(id, _)| !ids.contains(id) && is_here(*id));
        self.owed = owed.map(|(_, one)| one).collect();
        self.conversations = here.into();
    }

    /// Those of these conversations in which nobody was told what is said now, though it is the same as before.
    pub(super) fn unknown_in(&self, here: &[MemberOf], word: UpdateKind) -> Vec<MemberOf> {
        let ids = |all: &[MemberOf]| all.iter().map(|one| one.conversation).collect();
        let (told, owed): (FxHashSet<_>, FxHashSet<_>) =
            (ids(&self.conversations), ids(&self.owed));
        let is_unknown = |one: &&MemberOf| match word {
            UpdateKind::Unheard => true,
            UpdateKind::Change | UpdateKind::LateAnswer => !told.contains(&one.conversation),
            // Only the end was told there.
            UpdateKind::Repeat | UpdateKind::Answer => owed.contains(&one.conversation),
        };
        here.iter().filter(is_unknown).copied().collect()
    }

    /// Changes are told in these conversations as well.
    pub(super) fn extend_to(&mut self, here: &[MemberOf]) {
        let new = self.highest_of(here);
        let told = self.conversations.iter();
        let told: FxHashSet<_> = told.copied().collect();
        if new.iter().all(|one| told.contains(one)) {
            return;
        }
        let ids: FxHashSet<_> = new.iter().map(|one| one.conversation).collect();
        self.owed.retain(|one| !ids.contains(&one.conversation));
        let old = self.conversations.iter();
        let old = old.filter(|one| !ids.contains(&one.conversation));
        self.conversations = old.copied().chain(new.iter().copied()).collect();
    }

    /// The end is told in these conversations, as well as where changes are.
    pub(super) fn owe_to(&mut self, here: &[MemberOf]) {
        let told: FxHashSet<_> = self
            .conversations
            .iter()
            .map(|one| one.conversation)
            .collect();
        let owed = here.iter().filter(|one| !told.contains(&one.conversation));
        let owed = self.highest_of(&owed.copied().collect::<Vec<_>>());
        let ids: FxHashSet<_> = owed.iter().map(|one| one.conversation).collect();
        self.owed.retain(|one| !ids.contains(&one.conversation));
        self.owed.extend(owed);
    }

    /// These conversations, each with the highest seq up to which the user is known to have been a member.
    pub(super) fn highest_of(&self, here: &[MemberOf]) -> Vec<MemberOf> {
        let told = self.conversations.iter().chain(&self.owed);
        let known: FxHashMap<_, _> = told.map(|one| (one.conversation, one.as_of)).collect();
        let highest = |one: &MemberOf| MemberOf {
            as_of: known
                .get(&one.conversation)
                .map_or(one.as_of, |known| one.as_of.max(*known)),
            ..*one
        };
        here.iter().map(highest).collect()
    }

    /// What is to be told of it, wherever it is a member by what was heard here.
    pub(super) fn tell(
        &self,
        account: &Account,
        status: PresenceStatus,
        hostings: &Hostings,
    ) -> Presence {
        let is_end = status == PresenceStatus::Offline;
        let owed = self.owed.iter().filter(|_| is_end);
        let told_in = self.conversations.iter().chain(owed);
        let (tenant, user) = (account.tenant.clone(), account.user.clone());
        let told_in = told_in.map(|one| hostings.up_to_here(*one, self.named_at));
        Presence::new(tenant, user, status, told_in)
    }
}
