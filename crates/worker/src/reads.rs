//! Queries: each in one snapshot, with membership checked in it, and bounded so that its answer fits one NATS message.

use std::time::Duration;

use confab_protocol::command::{Answer, Query, QueryOutcome};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::LogEntry;
use confab_protocol::ids::{ClientId, ConversationId, EventId, UserId};
use confab_protocol::limits;
use confab_protocol::timestamp::Timestamp;
use sqlx::PgPool;
use time::OffsetDateTime;
use tracing::{debug, error};
use uuid::Uuid;

use crate::error::CommandError;

mod conversations;
mod events;
mod memberships;

/// What an answer may hold beside its envelope.
const ROOM: usize = limits::RPC - 16 * 1024;

/// Answers a query within `budget`.
pub(crate) async fn answer(pool: &PgPool, query: &Query, budget: Duration) -> QueryOutcome {
    match tokio::time::timeout(budget, read(pool, query)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CommandError::Refused(failure))) => Err(failure),
        Ok(Err(error)) => {
            debug!(error = ?error, query = query.name(), "a query failed");
            if matches!(error, CommandError::Json(_) | CommandError::Stored(_)) {
                error!(%error, query = query.name(), "stored data is not ours");
            }
            Err(error.failure(false))
        }
        Err(_late) => Err(Failure::of(Code::Timeout)),
    }
}

async fn read(pool: &PgPool, query: &Query) -> Result<Answer, CommandError> {
    match query {
        Query::GetConversation {
            caller,
            conversation,
        } => conversations::get(pool, caller, *conversation).await,
        Query::ListConversations(list) => conversations::list(pool, list).await,
        Query::History(history) => events::history(pool, history).await,
        Query::ReadEvents(read) => events::read(pool, read).await,
        Query::Memberships(of) => memberships::read(pool, of).await.map(Answer::Memberships),
    }
}

/// An event as it is stored.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct EventRow {
    pub(crate) seq: i64,
    pub(crate) id: Uuid,
    #[sqlx(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) actor: String,
    pub(crate) client_id: Option<Uuid>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) edited_at: Option<OffsetDateTime>,
    pub(crate) deleted_at: Option<OffsetDateTime>,
    pub(crate) payload: String,
}

/// The entry of a row; none where the row is not ours.
pub(crate) fn entry_of<'a>(
    conversation: Uuid,
    row: &'a EventRow,
    actor: &'a UserId,
) -> Option<LogEntry<'a>> {
    Some(LogEntry {
        conversation: ConversationId(conversation),
        seq: row.seq.cast_unsigned(),
        id: EventId(row.id),
        event_type: row.event_type.parse().ok()?,
        actor,
        client_id: row.client_id.map(ClientId),
        created_at: Timestamp::new(row.created_at),
        edited_at: row.edited_at.map(Timestamp::new),
        deleted_at: row.deleted_at.map(Timestamp::new),
        payload: &row.payload,
    })
}

/// Where the participants behind this one begin.
pub(crate) fn participants_cursor(joined_seq: u64, position: u64) -> String {
    format!("p{joined_seq}-{position}")
}

#[cfg(test)]
mod tests;
