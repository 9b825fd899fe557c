//! Calls to `/v1/messages`, and a conversation's history.

use std::collections::BTreeMap;

use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::resource::{Message, MessageBody, MessageContent};
use confab_protocol::timestamp::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Http, Replayable, query};
use crate::ClientError;

/// The most messages that a page may have.
const MAX_PAGE_MESSAGES: u32 = 200;

/// A message to send.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMessage {
    /// Where to.
    pub conversation_id: ConversationId,
    /// Makes it idempotent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The message.
    #[serde(flatten)]
    pub body: MessageBody,
}

/// Which messages of a conversation.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    /// Only below this seq.
    pub before: Option<Seq>,
    /// Only above this seq.
    pub after: Option<Seq>,
    /// Only of this sender.
    pub sender: Option<UserId>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only stored at or after this time.
    pub from: Option<Timestamp>,
    /// Only stored before this time.
    pub to: Option<Timestamp>,
}

/// A page of messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage {
    /// Newest first.
    pub messages: Vec<Message>,
    /// Where the next page begins; none at the end.
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadUpTo {
    conversation_id: ConversationId,
    up_to_seq: Seq,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadMessages<'a> {
    message_ids: &'a [EventId],
}

#[derive(Deserialize)]
struct ReadAnswer {
    read: BTreeMap<ConversationId, Seq>,
}

#[derive(Deserialize)]
struct MessageAnswer {
    message: Message,
}

impl Http {
    /// Sends a message; a repeat with the same `client_id` is given the stored message again.
    ///
    /// # Errors
    /// As every call.
    pub async fn send_message(
        &self,
        message: &NewMessage,
    ) -> Result<Replayable<Message>, ClientError> {
        let url = self.url("v1/messages")?;
        let answer = self.send(Method::POST, url, &[], Some(message)).await?;
        let Replayable { answer, replayed } = answer.replayable::<MessageAnswer>()?;
        Ok(Replayable {
            answer: answer.message,
            replayed,
        })
    }

    /// Reads one message.
    ///
    /// # Errors
    /// As every call.
    pub async fn message(&self, id: EventId) -> Result<Message, ClientError> {
        let url = self.url(&format!("v1/messages/{id}"))?;
        Ok(self.get::<MessageAnswer>(url).await?.message)
    }

    /// Replaces the content of one's own message.
    ///
    /// # Errors
    /// As every call.
    pub async fn edit_message(
        &self,
        id: EventId,
        content: &MessageContent,
    ) -> Result<Message, ClientError> {
        let url = self.url(&format!("v1/messages/{id}"))?;
        Ok(self.patch::<MessageAnswer>(url, content).await?.message)
    }

    /// Deletes one's own message, or as an admin another's: it keeps its seq and loses its content.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_message(&self, id: EventId) -> Result<Message, ClientError> {
        let url = self.url(&format!("v1/messages/{id}"))?;
        Ok(self.delete::<MessageAnswer>(url).await?.message)
    }

    /// Moves one's read mark forward, and tells where it stands.
    ///
    /// # Errors
    /// As every call.
    pub async fn mark_read(
        &self,
        conversation: ConversationId,
        up_to: Seq,
    ) -> Result<BTreeMap<ConversationId, Seq>, ClientError> {
        let mark = ReadUpTo {
            conversation_id: conversation,
            up_to_seq: up_to,
        };
        let url = self.url("v1/messages/read")?;
        Ok(self.post::<ReadAnswer>(url, &mark).await?.read)
    }

    /// Moves one's read marks forward to these messages, at most 100, and tells where they stand.
    ///
    /// # Errors
    /// As every call.
    pub async fn mark_messages_read(
        &self,
        messages: &[EventId],
    ) -> Result<BTreeMap<ConversationId, Seq>, ClientError> {
        let mark = ReadMessages {
            message_ids: messages,
        };
        let url = self.url("v1/messages/read")?;
        Ok(self.post::<ReadAnswer>(url, &mark).await?.read)
    }

    /// Reads a page of a conversation's messages, newest first, only those below `before` where it is given. A page may
    /// hold fewer than `limit`: more is there while it has a `next_cursor`.
    ///
    /// # Errors
    /// As every call.
    pub async fn history_page(
        &self,
        conversation: ConversationId,
        limit: u32,
        before: Option<Seq>,
    ) -> Result<MessagePage, ClientError> {
        let filter = MessageFilter {
            before,
            ..MessageFilter::default()
        };
        self.messages_page(conversation, &filter, limit, None).await
    }

    /// Reads a page of those of a conversation's messages that `filter` names; `cursor` is the page before's `next_cursor`.
    ///
    /// # Errors
    /// As every call.
    pub async fn messages_page(
        &self,
        conversation: ConversationId,
        filter: &MessageFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<MessagePage, ClientError> {
        let mut url = self.url(&format!("v1/conversations/{conversation}/messages"))?;
        query(&mut url, "limit", Some(limit));
        query(&mut url, "cursor", cursor);
        query(&mut url, "before", filter.before);
        query(&mut url, "after", filter.after);
        query(&mut url, "sender", filter.sender.as_ref());
        query(&mut url, "kind", filter.kind.as_ref());
        query(&mut url, "from", filter.from);
        query(&mut url, "to", filter.to);
        self.get(url).await
    }

    /// Reads all messages of a conversation, oldest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn history(&self, conversation: ConversationId) -> Result<Vec<Message>, ClientError> {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let before = messages.last().map(|oldest| oldest.seq);
            let page = self
                .history_page(conversation, MAX_PAGE_MESSAGES, before)
                .await?;
            let ended = page.next_cursor.is_none() || page.messages.is_empty();
            messages.extend(page.messages);
            if ended {
                messages.reverse();
                return Ok(messages);
            }
        }
    }
}
