//! What was revoked: a session, a login, or a user's tokens up to a time (docs/protocol/http.md).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{SessionId, TenantId, UserId};
use crate::timestamp::Timestamp;

/// The target of a revocation, within its tenant.
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

/// For how long a gateway needs revocations. Workers keep them for as long as any gateway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Those of logins and users, in seconds: the longest time from its issuing for which the gateway accepts a token.
    pub token_seconds: u64,
    /// Those of sessions, in seconds: for longer than this nothing can be resumed, nor may the gateway be unaware of them.
    pub session_seconds: u64,
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
    /// Until when it is kept: by then every token that it covers has expired, and a session cannot be resumed.
    pub expires_at: Timestamp,
}

/// A revocation as its caller and the operator see it: of the three, what was revoked is not null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationView {
    /// The session.
    #[schema(required)]
    pub session_id: Option<SessionId>,
    /// The login.
    #[schema(required)]
    pub login_session_id: Option<String>,
    /// The user; of a session, whose it must be.
    #[schema(required)]
    pub user_id: Option<UserId>,
    /// Of a user's tokens: those issued before this time.
    #[schema(required)]
    pub issued_before: Option<Timestamp>,
    /// Since when it is revoked.
    pub created_at: Timestamp,
    /// Until when the revocation is kept.
    pub expires_at: Timestamp,
}

impl From<&Revocation> for RevocationView {
    fn from(revocation: &Revocation) -> Self {
        let nothing = Self {
            session_id: None,
            login_session_id: None,
            user_id: None,
            issued_before: None,
            created_at: revocation.created_at,
            expires_at: revocation.expires_at,
        };
        match &revocation.target {
            RevocationTarget::Session { session, user } => Self {
                session_id: Some(*session),
                user_id: user.clone(),
                ..nothing
            },
            RevocationTarget::Login(login) => Self {
                login_session_id: Some(login.clone()),
                ..nothing
            },
            RevocationTarget::User {
                user,
                issued_before,
            } => Self {
                user_id: Some(user.clone()),
                issued_before: *issued_before,
                ..nothing
            },
        }
    }
}

impl RevocationView {
    /// Returns what was revoked; none where the view names nothing, or more than one thing.
    #[must_use]
    pub fn target(self) -> Option<RevocationTarget> {
        match (self.session_id, self.login_session_id, self.user_id) {
            (Some(session), None, user) => Some(RevocationTarget::Session { session, user }),
            (None, Some(login), None) => Some(RevocationTarget::Login(login)),
            (None, None, Some(user)) => Some(RevocationTarget::User {
                user,
                issued_before: self.issued_before,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_names_what_was_revoked() {
        let session = SessionId(uuid::Uuid::from_u128(7));
        let user: UserId = "alice".parse().unwrap();
        let at: Timestamp = "2026-07-01T12:00:00.000Z".parse().unwrap();
        let targets = [
            RevocationTarget::Session {
                session,
                user: None,
            },
            RevocationTarget::Session {
                session,
                user: Some(user.clone()),
            },
            RevocationTarget::Login("login".to_owned()),
            RevocationTarget::User {
                user,
                issued_before: Some(at),
            },
        ];
        for target in targets {
            let revocation = Revocation {
                revision: 1,
                tenant: "default".parse().unwrap(),
                target: target.clone(),
                created_at: at,
                expires_at: at,
            };
            let view = RevocationView::from(&revocation);
            assert_eq!(view.target(), Some(target));
        }
    }
}
