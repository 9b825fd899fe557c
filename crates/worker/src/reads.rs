//! Queries: each in one snapshot, with membership checked in it, and bounded so that its answer fits one NATS message.

use std::time::{Duration, Instant};

use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::{EventType, LogEntry};
use confab_protocol::ids::{ClientId, ConversationId, EventId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListOrder, Query, QueryOutcome};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tracing::{debug, error};
use uuid::Uuid;

use crate::commit::gives_up;
use crate::database::{Pool, SNAPSHOT};
use crate::error::{CommandError, Meaning, meaning};
use crate::revocations::lifetimes;

mod conversations;
mod events;
mod history;
mod list;
mod memberships;
mod messages;
mod participants;
mod revocations;
mod sharing;

pub(crate) use conversations::unread;
pub(crate) use history::STATEMENT as PAGE;

/// What an answer may hold beside its envelope.
const ROOM: usize = limits::MAX_RPC_BYTES - 16 * 1024;

/// How soon a query that failed for a passing reason is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// Answers a query within `budget`. It changes nothing, so that one whose connection broke is asked again on another.
pub(crate) async fn answer(pool: &Pool, query: &Query, budget: Duration) -> QueryOutcome {
    let deadline = Instant::now() + budget;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, read(pool, query)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_late) => return Err(Failure::of(Code::Timeout)),
        };
        debug!(error = %chain(&error), query = query.name(), "a query failed");
        match error {
            CommandError::Refused(failure) => return Err(failure),
            CommandError::Postgres(error) if is_passing(&error) => {
                if gives_up(deadline, Instant::now() + AGAIN) {
                    return Err(
                        Failure::new(Code::Unavailable, "Postgres is away").retry_after(1000)
                    );
                }
                tokio::time::sleep(AGAIN).await;
            }
            CommandError::Postgres(_)
            | CommandError::KeyInUse(_)
            | CommandError::Json(_)
            | CommandError::Stored(_) => {
                error!(error = %chain(&error), "a query cannot be answered");
                return Err(error.failure(false));
            }
        }
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    matches!(
        meaning(error),
        Meaning::Again | Meaning::NotExecuted | Meaning::Unknown
    )
}

/// Answers a query, in one snapshot where it takes several statements. Dropped meanwhile it closes its connection.
async fn read(pool: &Pool, query: &Query) -> Result<Answer, CommandError> {
    if let Query::Revocations {
        lifetimes: Some(said),
        ..
    } = query
    {
        // Before the answer: only with it a gateway lets anyone in.
        lifetimes::note(pool, *said).await?;
    }
    if takes_several_statements(query) {
        let mut tx = pool.begin(SNAPSHOT).await?;
        let answer = read_on(&mut tx, query).await;
        if !answer.as_ref().is_err_and(CommandError::poisons_connection)
            && let Err(error) = tx.rollback().await
        {
            debug!(error = %chain(&error), "a connection was lost behind its answer");
        }
        return answer;
    }
    let mut connection = pool.acquire().await?;
    let answer = read_on(&mut connection, query).await;
    if !answer.as_ref().is_err_and(CommandError::poisons_connection) {
        connection.release();
    }
    answer
}

fn takes_several_statements(query: &Query) -> bool {
    match query {
        Query::GetConversation { .. }
        | Query::ListParticipants(_)
        | Query::History(_)
        | Query::Log(_) => true,
        Query::ListConversations(list) => list.order == ListOrder::Created,
        Query::GetMessage { .. }
        | Query::Sharing { .. }
        | Query::Revocations { .. }
        | Query::ReadEvents(_)
        | Query::ReadRanges(_)
        | Query::Memberships(_) => false,
    }
}

async fn read_on(connection: &mut PgConnection, query: &Query) -> Result<Answer, CommandError> {
    match query {
        Query::GetConversation {
            caller,
            conversation,
        } => conversations::get(connection, caller, *conversation).await,
        Query::ListConversations(list) => list::read(connection, list).await,
        Query::ListParticipants(list) => participants::list(connection, list).await,
        Query::GetMessage { caller, message } => messages::get(connection, caller, *message).await,
        Query::Sharing { caller, users } => sharing::read(connection, caller, users)
            .await
            .map(Answer::Users),
        Query::History(history) => history::read(connection, history).await,
        Query::Log(log) => events::log(connection, log).await,
        Query::Revocations { after, .. } => revocations::read(connection, *after).await,
        Query::ReadEvents(read) => events::read(connection, read).await,
        Query::ReadRanges(read) => events::ranges(connection, read).await,
        Query::Memberships(of) => memberships::read(connection, of)
            .await
            .map(Answer::Memberships),
    }
}

/// The columns of an [`EventRow`] in a statement that has `events e` and, behind it, [`EVENT_TARGET`].
pub(crate) const EVENT_COLUMNS: &str = "e.seq, e.id, e.type, e.actor, e.client_id, e.created_at, e.edited_at, e.deleted_at, \
    e.version, e.payload, e.target_seq, t.target_id, t.target_client_id, t.target_created_at, t.target_edited_at, t.target_deleted_at, \
    t.target_version, t.target_payload";

/// The message that each `message.edited` of `events e` is about. Looked up one by one: whatever the planner takes a log's size for, it
/// is not read as a whole.
pub(crate) const EVENT_TARGET: &str = "left join lateral (select t.id as target_id, t.client_id as target_client_id, \
    t.created_at as target_created_at, t.edited_at as target_edited_at, t.deleted_at as target_deleted_at, \
    t.version as target_version, t.payload as target_payload from events t \
    where e.type = 'message.edited' and t.conversation_id = e.conversation_id and t.seq = e.target_seq limit 1) t on true";

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
    pub(crate) version: Option<i32>,
    pub(crate) payload: String,
    #[sqlx(default)]
    pub(crate) target_seq: Option<i64>,
    #[sqlx(flatten)]
    pub(crate) target: TargetRow,
}

/// The message that a `message.edited` is about; nothing where the event is another, or was read without its target.
#[derive(Debug, Default, sqlx::FromRow)]
#[sqlx(default)]
pub(crate) struct TargetRow {
    pub(crate) target_id: Option<Uuid>,
    pub(crate) target_client_id: Option<Uuid>,
    pub(crate) target_created_at: Option<OffsetDateTime>,
    pub(crate) target_edited_at: Option<OffsetDateTime>,
    pub(crate) target_deleted_at: Option<OffsetDateTime>,
    pub(crate) target_version: Option<i32>,
    pub(crate) target_payload: Option<String>,
}

/// The entry of a row; none where the row is not ours, or that of an edit without its message.
pub(crate) fn entry_of<'a>(
    conversation: Uuid,
    row: &'a EventRow,
    actor: &'a UserId,
) -> Option<LogEntry<'a>> {
    let event_type = row.event_type.parse().ok()?;
    let target = match event_type {
        EventType::MessageEdited => Some(Box::new(target_of(conversation, row, actor)?)),
        _ => None,
    };
    Some(LogEntry {
        conversation: ConversationId(conversation),
        seq: row.seq.cast_unsigned(),
        id: EventId(row.id),
        event_type,
        actor,
        client_id: row.client_id.map(ClientId),
        created_at: Timestamp::new(row.created_at),
        edited_at: row.edited_at.map(Timestamp::new),
        deleted_at: row.deleted_at.map(Timestamp::new),
        version: version(row.version),
        payload: &row.payload,
        target_seq: row.target_seq.map(i64::cast_unsigned),
        target,
    })
}

/// The message that an edit is about. Only senders edit: its sender is the edit's actor.
fn target_of<'a>(conversation: Uuid, row: &'a EventRow, actor: &'a UserId) -> Option<LogEntry<'a>> {
    let target = &row.target;
    Some(LogEntry {
        conversation: ConversationId(conversation),
        seq: row.target_seq?.cast_unsigned(),
        id: EventId(target.target_id?),
        event_type: EventType::MessageCreated,
        actor,
        client_id: target.target_client_id.map(ClientId),
        created_at: Timestamp::new(target.target_created_at?),
        edited_at: target.target_edited_at.map(Timestamp::new),
        deleted_at: target.target_deleted_at.map(Timestamp::new),
        version: version(target.target_version),
        payload: target.target_payload.as_deref()?,
        target_seq: None,
        target: None,
    })
}

/// A message's version as it is stored: null is the first.
pub(crate) fn version(stored: Option<i32>) -> u64 {
    stored
        .and_then(|stored| u64::try_from(stored).ok())
        .unwrap_or(1)
}

/// The message of a `message.created`.
fn message(conversation: ConversationId, row: &EventRow) -> Result<JsonText, CommandError> {
    let actor = row
        .actor
        .parse()
        .map_err(|_bad| CommandError::Stored("a user id"))?;
    let entry =
        entry_of(conversation.0, row, &actor).ok_or(CommandError::Stored("an event's type"))?;
    Ok(JsonText::trusted(entry.encode_message()))
}

/// Where the participants behind this one begin.
pub(crate) fn participants_cursor(joined_seq: u64, position: u64) -> String {
    format!("p{joined_seq}-{position}")
}

#[cfg(test)]
mod tests;
