//! The commands that users issue.

use confab_protocol::ids::Seq;
use serde_json::Value;
use uuid::Uuid;

/// A user, by name.
pub(super) type Who = &'static str;
/// Whose token has `confab:admin`: never a member.
pub(super) const BACKEND_USER: Who = "backend";
pub(super) const MODEL_USERS: [Who; 5] = ["alice", "bob", "carol", "dave", "erin"];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ModelCommand {
    Create(Create),
    /// In the conversation of this number.
    In(usize, ModelAction),
    /// Messages, by their conversations' numbers and their seqs.
    ReadMessages(Vec<(usize, Seq)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Create {
    pub(super) r#type: &'static str,
    pub(super) users: Vec<Who>,
    pub(super) metadata: Value,
    pub(super) key: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ModelAction {
    Patch {
        patch: Value,
        /// `If-Match`, as it is sent, and the version that it demands.
        if_match: Option<(String, Option<u64>)>,
    },
    Delete,
    Add {
        members: Vec<(Who, &'static str)>,
    },
    SetRole {
        user: Who,
        role: &'static str,
    },
    Remove {
        user: Who,
    },
    Send {
        client_id: Uuid,
        message: ModelBody,
    },
    Edit {
        seq: Seq,
        content: Content,
    },
    Unsend {
        seq: Seq,
    },
    Read {
        up_to: Seq,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelBody {
    pub(super) kind: &'static str,
    pub(super) content: Content,
    pub(super) reply_to: Option<Seq>,
    pub(super) metadata: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Clear(Value),
    /// In base64, with how many bytes it is of.
    Sealed(&'static str, u64),
}
