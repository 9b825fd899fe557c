//! What was revoked: a session, a login, or a user's tokens up to a time (API.md, Revocations).

use serde::{Deserialize, Serialize};

use crate::ids::{SessionId, TenantId, UserId};
use crate::timestamp::Timestamp;

/// What is revoked, within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RevocationTarget {
    /// One connection's life across resumes.
    Session {
        /// Which.
        session: SessionId,
        /// Whose it must be: a user revokes its own only.
        user: Option<UserId>,
    },
    /// Every token of a login, and the sessions opened with one.
    Login(String),
    /// A user's tokens issued before a time, and the sessions opened with one.
    User {
        /// Whose.
        user: UserId,
        /// Before when; the time of the revocation when absent.
        issued_before: Option<Timestamp>,
    },
}

/// A revocation as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Grows with every revocation, in the order of their commits.
    pub revision: u64,
    /// The product.
    pub tenant: TenantId,
    /// What was revoked; of a user's tokens, with the time.
    pub target: RevocationTarget,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when it is kept: by then every token that it covers has expired.
    pub expires_at: Timestamp,
}
