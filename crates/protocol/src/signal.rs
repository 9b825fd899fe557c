//! Signals between gateways: typing, receipts, presence. Best effort, not numbered, not replayed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ConversationId, Seq, TenantId, UserId};

/// What a user's sessions say of it together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PresenceStatus {
    /// No session, for longer than the grace period.
    Offline,
    /// Sessions, all of them away.
    Away,
    /// A session that is not away.
    Online,
}

/// A signal about one conversation, on its way to its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The product.
    pub tenant: TenantId,
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// What.
    pub kind: SignalKind,
    /// Of typing, the gateway that says so of all its sessions of the user together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<uuid::Uuid>,
}

/// The kind of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalKind {
    /// It types, or stopped to.
    Typing(bool),
    /// It has read up to this seq.
    Receipt(Seq),
}

/// A gateway's word on the presence of one of its users: one message a change, whatever number of conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The product.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// What its sessions at that gateway say together.
    pub status: PresenceStatus,
    /// In which conversations that is to be told.
    pub conversations: Vec<ConversationId>,
    /// Of each of these, up to which seq the gateway had heard its log, by which the user was a member: nobody is told that joined later. None
    /// from a gateway that knows nothing of this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_of: Vec<Seq>,
}

/// A conversation of a user, as its log stood up to a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberOf {
    /// Where it was a member.
    pub conversation: ConversationId,
    /// Up to this seq.
    pub as_of: Seq,
}

impl Presence {
    /// A word on a user, which is to be told in these conversations.
    pub fn new(
        tenant: TenantId,
        user: UserId,
        status: PresenceStatus,
        member_of: impl IntoIterator<Item = MemberOf>,
    ) -> Self {
        let named = member_of
            .into_iter()
            .map(|one| (one.conversation, one.as_of));
        let (conversations, as_of) = named.unzip();
        Self {
            tenant,
            user,
            status,
            conversations,
            as_of,
        }
    }

    /// Returns where it is to be told.
    pub fn member_of(&self) -> impl Iterator<Item = MemberOf> {
        let as_of = self.as_of.iter().copied();
        let ids = self.conversations.iter().copied();
        ids.zip(as_of.chain(std::iter::repeat(Seq::MAX)))
            .map(|(conversation, as_of)| MemberOf {
                conversation,
                as_of,
            })
    }
}

/// A query about presence to the other gateways: of users, of the members of conversations, or of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceQuestion {
    /// Users of the tenant.
    pub users: Vec<UserId>,
    /// Conversations of the tenant.
    pub conversations: Vec<ConversationId>,
}

/// A gateway's answer to a [`PresenceQuestion`]: those of whom it asks that have sessions there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceAnswer {
    /// Which gateway.
    pub gateway: uuid::Uuid,
    /// As in [`PresenceNews`].
    pub number: u64,
    /// Who is there, with those of the conversations asked about in which it is a member.
    pub words: Vec<Presence>,
    /// Whose last session there ended, and who may come back within its grace period: with what was said of it before, and those of the
    /// conversations in which it was a member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lingering: Vec<Presence>,
    /// Whether these are all.
    pub is_whole: bool,
}

/// The presence of a gateway's users of one product, told at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceNews {
    /// Which gateway: its words are forgotten when it dies.
    pub gateway: uuid::Uuid,
    /// Grows with every message of the gateway's about presence: of two words on a user the one with the higher number is the newer. Zero from a
    /// gateway that knows nothing of this.
    #[serde(default)]
    pub number: u64,
    /// What changed.
    pub changes: Vec<Presence>,
    /// What did not change, for those who do not know it yet; nobody is told of it.
    pub repeats: Vec<Presence>,
    /// What did not change either, of which those may not know who were not told when it did: they are told now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<Presence>,
    /// Conversations that the gateway hosts since now: the others repeat what they know of their members.
    pub wanted: Vec<ConversationId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn signals_and_presence_survive_wire_and_stay_small() {
        let conversation = ConversationId(uuid::Uuid::now_v7());
        let (tenant, user): (TenantId, UserId) = ("t".parse().unwrap(), "alice".parse().unwrap());
        let signal = Signal {
            tenant: tenant.clone(),
            conversation,
            user: user.clone(),
            kind: SignalKind::Receipt(7),
            gateway: None,
        };
        let bytes = encode(&signal).unwrap();
        assert_eq!(decode::<Signal>(&bytes).unwrap(), signal);
        let member_of = MemberOf {
            conversation,
            as_of: 60_000,
        };
        let news = PresenceNews {
            gateway: uuid::Uuid::now_v7(),
            number: 7,
            changes: vec![Presence::new(
                tenant,
                user,
                PresenceStatus::Away,
                vec![member_of; 100],
            )],
            repeats: vec![],
            unheard: vec![],
            wanted: vec![conversation],
        };
        let bytes = encode(&news).unwrap();
        assert!(bytes.len() < 101 * 21 + 200, "{}", bytes.len());
        assert_eq!(decode::<PresenceNews>(&bytes).unwrap(), news);
        assert_eq!(news.changes[0].member_of().last(), Some(member_of));
    }

    #[test]
    fn presence_from_older_gateway_goes_to_everyone() {
        let conversation = ConversationId(uuid::Uuid::now_v7());
        let word = Presence {
            tenant: "t".parse().unwrap(),
            user: "alice".parse().unwrap(),
            status: PresenceStatus::Online,
            conversations: vec![conversation],
            as_of: vec![],
        };
        let word: Presence = decode(&encode(&word).unwrap()).unwrap();
        let as_of: Vec<_> = word.member_of().map(|one| one.as_of).collect();
        assert_eq!(as_of, [Seq::MAX]);
    }
}
