//! Calls to `/v1/conversations/{id}/participants`.

use confab_protocol::event::Member;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::resource::{Participant, Role};
use confab_protocol::timestamp::Timestamp;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{Http, query};
use crate::ClientError;

/// The most participants that a page may have.
const MAX_PAGE_PARTICIPANTS: u32 = 1000;

/// Members to add.
#[derive(Debug, Clone, Serialize)]
pub struct NewMembers {
    /// Whom, and as what: at most 1,000.
    pub participants: Vec<Member>,
}

/// Which participants.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParticipantFilter {
    /// True if memberships that ended are told as well.
    pub include_left: bool,
    /// Only of this role.
    pub role: Option<Role>,
}

/// A page of participants.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantPage {
    /// By their joining.
    pub participants: Vec<Participant>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

/// A membership that ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// The membership as it ended.
    pub participant: Participant,
    /// When the conversation was deleted because its last member left.
    #[serde(default)]
    pub conversation_deleted_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct NewRole {
    role: Role,
}

#[derive(Deserialize)]
struct ParticipantsAnswer {
    participants: Vec<Participant>,
}

#[derive(Deserialize)]
struct ParticipantAnswer {
    participant: Participant,
}

impl Http {
    /// Adds members, all or none; they are answered in the order given.
    ///
    /// # Errors
    /// As every call.
    pub async fn add_participants(
        &self,
        conversation: ConversationId,
        members: &NewMembers,
    ) -> Result<Vec<Participant>, ClientError> {
        let url = self.url(&format!("v1/conversations/{conversation}/participants"))?;
        Ok(self
            .post::<ParticipantsAnswer>(url, members)
            .await?
            .participants)
    }

    /// Reads a page of a conversation's participants, by their joining. A page may hold fewer than `limit`: more is there
    /// while it has a `next_cursor`.
    ///
    /// # Errors
    /// As every call.
    pub async fn participants_page(
        &self,
        conversation: ConversationId,
        filter: &ParticipantFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<ParticipantPage, ClientError> {
        let mut url = self.url(&format!("v1/conversations/{conversation}/participants"))?;
        query(&mut url, "limit", Some(limit));
        query(&mut url, "cursor", cursor);
        query(&mut url, "role", filter.role.map(Role::as_str));
        query(&mut url, "includeLeft", filter.include_left.then_some(true));
        self.get(url).await
    }

    /// Reads all of a conversation's participants, by their joining.
    ///
    /// # Errors
    /// As every call.
    pub async fn participants(
        &self,
        conversation: ConversationId,
        filter: &ParticipantFilter,
    ) -> Result<Vec<Participant>, ClientError> {
        let mut participants = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.participants_page(
                conversation,
                filter,
                MAX_PAGE_PARTICIPANTS,
                cursor.as_deref(),
            );
            let page = page.await?;
            participants.extend(page.participants);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(participants);
            }
        }
    }

    /// Changes a member's role.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_role(
        &self,
        conversation: ConversationId,
        user: &UserId,
        role: Role,
    ) -> Result<Participant, ClientError> {
        let url = self.participant_url(conversation, user)?;
        let role = NewRole { role };
        Ok(self
            .patch::<ParticipantAnswer>(url, &role)
            .await?
            .participant)
    }

    /// Ends a user's membership, or one's own.
    ///
    /// # Errors
    /// As every call.
    pub async fn remove_participant(
        &self,
        conversation: ConversationId,
        user: &UserId,
    ) -> Result<Removal, ClientError> {
        self.delete(self.participant_url(conversation, user)?).await
    }

    fn participant_url(
        &self,
        conversation: ConversationId,
        user: &UserId,
    ) -> Result<Url, ClientError> {
        let mut url = self.url(&format!("v1/conversations/{conversation}/participants"))?;
        url.path_segments_mut()
            .map_err(|()| ClientError::Invalid("URL", "it has no path".into()))?
            .push(user.as_str());
        Ok(url)
    }
}
