//! A user's sessions, and what is revoked.

use confab_protocol::frame::PresenceSignal;
use confab_protocol::ids::{SessionId, UserId};
use confab_protocol::resource::Session;
use confab_protocol::revocation::RevocationView;
use confab_protocol::timestamp::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::Http;
use crate::ClientError;

/// A revocation by a product's backend: one of the first three fields, and perhaps the time before which tokens were issued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewRevocation {
    /// A session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// A login, with every token of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_session_id: Option<String>,
    /// A user, with every token issued before `issued_before`, or before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Only with `user_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct SessionsAnswer {
    sessions: Vec<Session>,
}

/// The presence of users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Presences {
    /// Those users asked about who share a conversation with the caller, in the order asked.
    pub presences: Vec<PresenceSignal>,
    /// True if every gateway answered.
    pub complete: bool,
}

#[derive(Debug, Deserialize)]
struct RevocationAnswer {
    revocation: RevocationView,
}

impl Http {
    /// Reads the user's open sessions at all gateways, the newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn sessions(&self) -> Result<Vec<Session>, ClientError> {
        let answer: SessionsAnswer = self.get(self.url("v1/sessions")?).await?;
        Ok(answer.sessions)
    }

    /// Says which of these users are there, of those who share a conversation with the caller.
    ///
    /// # Errors
    /// As every call.
    pub async fn presence(&self, users: &[UserId]) -> Result<Presences, ClientError> {
        let mut url = self.url("v1/presence")?;
        let mut query = url.query_pairs_mut();
        for user in users {
            query.append_pair("userIds", user.as_str());
        }
        drop(query);
        self.get(url).await
    }

    /// Ends one of the user's sessions for good, at whichever gateway it is. An id that is none of its sessions is no error.
    ///
    /// # Errors
    /// As every call.
    pub async fn revoke_session(&self, session: SessionId) -> Result<RevocationView, ClientError> {
        let url = self.url(&format!("v1/sessions/{session}"))?;
        let answer = self.send(Method::DELETE, url, &[], None::<&()>).await?;
        Ok(answer.json::<RevocationAnswer>()?.revocation)
    }

    /// Revokes as the product's own backend (`confab:admin`).
    ///
    /// # Errors
    /// As every call.
    pub async fn revoke(&self, revocation: &NewRevocation) -> Result<RevocationView, ClientError> {
        let url = self.url("v1/revocations")?;
        let answer = self.send(Method::POST, url, &[], Some(revocation)).await?;
        Ok(answer.json::<RevocationAnswer>()?.revocation)
    }
}
