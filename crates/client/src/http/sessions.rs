//! Calls to `/v1/sessions` and `/v1/revocations`.

use confab_protocol::ids::{SessionId, UserId};
use confab_protocol::resource::Session;
use confab_protocol::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use super::Http;
use crate::ClientError;

/// What the product's own backend revokes.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum NewRevocation {
    /// One connection's life across resumes.
    #[serde(rename_all = "camelCase")]
    Session {
        /// Which.
        session_id: SessionId,
    },
    /// Every token of a login.
    #[serde(rename_all = "camelCase")]
    Login {
        /// Which.
        login_session_id: String,
    },
    /// A user's tokens.
    #[serde(rename_all = "camelCase")]
    User {
        /// Whose.
        user_id: UserId,
        /// Those issued before this time; all up to now when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        issued_before: Option<Timestamp>,
    },
}

/// A revocation: what it is not about is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationView {
    /// The session that was revoked.
    pub session_id: Option<SessionId>,
    /// The login whose tokens were.
    pub login_session_id: Option<String>,
    /// The user whose session or tokens it covers.
    pub user_id: Option<UserId>,
    /// Tokens issued before this time are refused.
    pub issued_before: Option<Timestamp>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when it is kept: by then every token that it covers has expired.
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
struct SessionsAnswer {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct RevocationAnswer {
    revocation: RevocationView,
}

impl Http {
    /// Reads the user's open sessions.
    ///
    /// # Errors
    /// As every call.
    pub async fn sessions(&self) -> Result<Vec<Session>, ClientError> {
        let url = self.url("v1/sessions")?;
        Ok(self.get::<SessionsAnswer>(url).await?.sessions)
    }

    /// Revokes one of the user's sessions: its connection is closed, and it cannot be resumed.
    ///
    /// # Errors
    /// As every call.
    pub async fn revoke_session(&self, id: SessionId) -> Result<RevocationView, ClientError> {
        let url = self.url(&format!("v1/sessions/{id}"))?;
        Ok(self.delete::<RevocationAnswer>(url).await?.revocation)
    }

    /// Revokes a session, a login or a user's tokens, with a token of the scope `confab:admin`.
    ///
    /// # Errors
    /// As every call.
    pub async fn revoke(&self, revocation: &NewRevocation) -> Result<RevocationView, ClientError> {
        let url = self.url("v1/revocations")?;
        let answer = self.post::<RevocationAnswer>(url, revocation).await?;
        Ok(answer.revocation)
    }
}
