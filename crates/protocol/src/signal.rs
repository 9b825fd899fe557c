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

/// What a signal says of its user.
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
}

/// What a gateway asks of the others about presence: of users, of the members of conversations, or of both.
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
    /// Whether these are all.
    pub is_whole: bool,
}

/// What a gateway says at once of the presence of its users of one product.
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
    /// Conversations that the gateway hosts since now: the others repeat what they know of their members.
    pub wanted: Vec<ConversationId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn signals_and_news_of_presence_survive_the_wire_and_are_small() {
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
        let news = PresenceNews {
            gateway: uuid::Uuid::now_v7(),
            number: 7,
            changes: vec![Presence {
                tenant,
                user,
                status: PresenceStatus::Away,
                conversations: vec![conversation; 100],
            }],
            repeats: vec![],
            wanted: vec![conversation],
        };
        let bytes = encode(&news).unwrap();
        assert!(bytes.len() < 101 * 18 + 200, "{}", bytes.len());
        assert_eq!(decode::<PresenceNews>(&bytes).unwrap(), news);
    }
}
