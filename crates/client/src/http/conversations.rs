//! Calls to `/v1/conversations`.

use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::query::ListOrder;
use confab_protocol::resource::{Conversation, ConversationType, Participant};
use confab_protocol::timestamp::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Http, Replayable, query};
use crate::ClientError;

/// A conversation to begin.
#[derive(Debug, Clone, Serialize)]
pub struct NewConversation {
    /// What kind.
    pub r#type: ConversationType,
    /// The first members. Of a direct conversation both; of a group the caller may be left out.
    pub participants: Vec<UserId>,
    /// Name, description, avatar, custom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonText>,
}

/// Which of the user's conversations, and in which order.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConversationFilter {
    /// Only of this type.
    pub r#type: Option<ConversationType>,
    /// The last active first, or the newest.
    pub order: ListOrder,
}

/// A conversation with its first participants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView {
    /// The conversation, and what it is to the caller.
    pub conversation: Conversation,
    /// The current participants by joining, the first 100.
    pub participants: Vec<Participant>,
    /// Where their next page begins; none when these are all.
    pub participants_next_cursor: Option<String>,
}

/// A page of conversations.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationPage {
    /// In the order asked for.
    pub conversations: Vec<Conversation>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
struct MetadataPatch<'a> {
    metadata: &'a JsonText,
}

#[derive(Deserialize)]
struct ConversationAnswer {
    conversation: Conversation,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletionAnswer {
    deleted_at: Timestamp,
}

impl Http {
    /// Begins a conversation; a repeat with the same `key` is given the first answer again.
    ///
    /// # Errors
    /// As every call: [`ClientError::Problem`] when refused, else what went wrong on the way.
    pub async fn create_conversation(
        &self,
        conversation: &NewConversation,
        key: Option<&str>,
    ) -> Result<Replayable<ConversationView>, ClientError> {
        let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", *key)).collect();
        let url = self.url("v1/conversations")?;
        let answer = self.send(Method::POST, url, &headers, Some(conversation));
        answer.await?.replayable()
    }

    /// Reads a conversation and its first participants.
    ///
    /// # Errors
    /// As every call.
    pub async fn conversation(&self, id: ConversationId) -> Result<ConversationView, ClientError> {
        self.get(self.url(&format!("v1/conversations/{id}"))?).await
    }

    /// Reads a page of the user's conversations, the last active first; `cursor` is the page before's `next_cursor`.
    ///
    /// # Errors
    /// As every call.
    pub async fn conversations(
        &self,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<ConversationPage, ClientError> {
        self.conversations_of(&ConversationFilter::default(), limit, cursor)
            .await
    }

    /// Reads a page of those of the user's conversations that `filter` names. A page may hold fewer than `limit`: more is
    /// there while it has a `next_cursor`.
    ///
    /// # Errors
    /// As every call.
    pub async fn conversations_of(
        &self,
        filter: &ConversationFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<ConversationPage, ClientError> {
        let mut url = self.url("v1/conversations")?;
        query(&mut url, "limit", Some(limit));
        query(&mut url, "cursor", cursor);
        query(
            &mut url,
            "type",
            filter.r#type.map(ConversationType::as_str),
        );
        let created = filter.order == ListOrder::Created;
        query(&mut url, "order", created.then_some("created"));
        self.get(url).await
    }

    /// Changes a conversation's metadata by a JSON merge patch (RFC 7396); `version` is the one it must have.
    ///
    /// # Errors
    /// As every call.
    pub async fn update_conversation(
        &self,
        id: ConversationId,
        metadata: &JsonText,
        version: Option<u64>,
    ) -> Result<Conversation, ClientError> {
        let url = self.url(&format!("v1/conversations/{id}"))?;
        let version = version.map(|version| format!("\"{version}\""));
        let headers: Vec<_> = version
            .iter()
            .map(|version| ("if-match", version.as_str()))
            .collect();
        let patch = MetadataPatch { metadata };
        let answer = self
            .send(Method::PATCH, url, &headers, Some(&patch))
            .await?;
        Ok(answer.json::<ConversationAnswer>()?.conversation)
    }

    /// Deletes a conversation, and tells since when it is deleted.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_conversation(&self, id: ConversationId) -> Result<Timestamp, ClientError> {
        let url = self.url(&format!("v1/conversations/{id}"))?;
        Ok(self.delete::<DeletionAnswer>(url).await?.deleted_at)
    }
}
