//! What every command that goes alone does first: lock the conversation, look for an earlier execution, read.

use std::time::Instant;

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::EventType;
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::role;
use super::transact::Asker;
use crate::decision::Locked;
use crate::error::CommandError;

/// How long the key of a command that appended nothing is recognised: as long as that of a creation.
pub(super) const SETTLED_KEY_SECONDS: i64 = 24 * 60 * 60;

/// Locks the conversation's row, in a statement of its own: what follows sees all that committed while this waited.
pub(super) async fn lock(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
) -> Result<(), CommandError> {
    let found: Option<(bool,)> = sqlx::query_as(
        "select true from conversations where id = $1 and tenant = $2 for no key update",
    )
    .bind(id.0)
    .bind(caller.tenant.as_str())
    .fetch_optional(tx)
    .await?;
    found
        .map(|_| ())
        .ok_or_else(|| Failure::of(Code::ConversationNotFound).into())
}

/// Waits for a conversation's lock, where it is known, and lets the transaction wait for others: until `deadline`, and not longer than a
/// place's connection waits. In a statement of its own, so that Postgres' own queue gives it its turn.
pub(super) async fn wait_for_lock(
    tx: &mut PgConnection,
    caller: &Caller,
    conversation: Option<ConversationId>,
    deadline: Instant,
) -> Result<(), sqlx::Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(LOCK_TIMEOUT)
        .bind(left.max(1))
        .execute(&mut *tx)
        .await?;
    if let Some(id) = conversation {
        sqlx::query("select from conversations where id = $1 and tenant = $2 for no key update")
            .bind(id.0)
            .bind(caller.tenant.as_str())
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// Lowers the connection's own lock timeout to so many milliseconds, for this transaction.
const LOCK_TIMEOUT: &str = "select set_config('lock_timeout', \
    least(extract(epoch from current_setting('lock_timeout')::interval) * 1000, $1)::bigint::text, true)";

/// The event that an earlier execution of a command appended, or found.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct FirstExecution {
    /// Whether what it asked for stood already: it appended nothing.
    pub(super) is_settled: bool,
    seq: i64,
    id: Uuid,
    #[sqlx(rename = "type")]
    event_type: String,
    created_at: OffsetDateTime,
    target_seq: Option<i64>,
    /// The event's data.
    pub(super) payload: String,
    /// Of a command that appended nothing, what it asked for beyond what the event tells.
    pub(super) detail: Option<String>,
}

impl FirstExecution {
    /// The event's number.
    pub(super) const fn seq(&self) -> Seq {
        self.seq.cast_unsigned()
    }

    /// When the event was stored.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::new(self.created_at)
    }

    /// The message that it is about.
    pub(super) fn target(&self) -> Option<Seq> {
        let is_message = self.event_type == EventType::MessageCreated.as_str();
        let target = self.target_seq.or_else(|| is_message.then_some(self.seq));
        target.map(i64::cast_unsigned)
    }

    /// Whether it was no other try of the same request that the key was used by.
    pub(super) fn is_repeated_by(&self, asker: &Asker<'_>) -> bool {
        self.is_settled || asker.event != Some(EventId(self.id))
    }

    /// Whether it may be what an earlier execution of a command left that appends `expected`.
    fn is_of(&self, expected: EventType) -> bool {
        let is_edited_message = expected == EventType::MessageEdited
            && self.event_type == EventType::MessageCreated.as_str();
        self.event_type == expected.as_str()
            || self.is_settled && (is_edited_message || self.detail.is_some())
    }
}

/// An event by the key of the command: $1 conversation, $2 actor, $3 key.
pub(super) const FIRST_EXECUTION: &str = "\
    select false as is_settled, e.seq, e.id, e.type, e.created_at, e.target_seq, e.payload, null::text as detail from events e \
    where e.conversation_id = $1 and e.actor = $2 and e.client_id = $3 \
    union all \
    select true, e.seq, e.id, e.type, e.created_at, e.target_seq, e.payload, k.detail from settled_keys k \
    cross join lateral ( \
        select seq, id, type, created_at, target_seq, payload from events \
        where conversation_id = k.conversation_id and seq = k.seq limit 1) e \
    where k.conversation_id = $1 and k.actor = $2 and k.client_id = $3 \
    limit 1";

/// Looks for an earlier execution by the command's key. Before anything else is asked: it answers as it did, whatever became of its
/// caller since.
pub(super) async fn first_execution(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
    key: ClientId,
    expected: EventType,
) -> Result<Option<FirstExecution>, CommandError> {
    let found: Option<FirstExecution> = sqlx::query_as(FIRST_EXECUTION)
        .bind(id.0)
        .bind(caller.user.as_str())
        .bind(key.0)
        .fetch_optional(tx)
        .await?;
    match found {
        Some(first) if !first.is_of(expected) => Err(reused()),
        found => Ok(found),
    }
}

/// The key was used for another command.
pub(super) fn reused() -> CommandError {
    Failure::of(Code::IdempotencyKeyReused).into()
}

/// Notes that the command was carried out and appended nothing, since what it asks for stood at the event `found`: a repeat finds that event.
/// `detail` is what it asked for, where the event does not tell.
pub(super) async fn settle(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
    key: ClientId,
    (found, detail): (Seq, Option<&str>),
) -> Result<(), CommandError> {
    sqlx::query(
        "insert into settled_keys (conversation_id, actor, client_id, seq, detail, expires_at) \
         values ($1, $2, $3, $4, $6, clock_timestamp() + $5 * interval '1 second')",
    )
    .bind(id.0)
    .bind(caller.user.as_str())
    .bind(key.0)
    .bind(found.cast_signed())
    .bind(SETTLED_KEY_SECONDS)
    .bind(detail)
    .execute(tx)
    .await?;
    Ok(())
}

/// Reads what the command is decided on. No event is older than the one before it, whatever the clock says: times of one conversation
/// can be turned into seqs.
pub(super) async fn read(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
) -> Result<Locked, CommandError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(rename = "type")]
        conversation_type: String,
        last_seq: i64,
        members: i32,
        deleted_at: Option<OffsetDateTime>,
        own_role: Option<String>,
        was_member: bool,
        now: OffsetDateTime,
    }
    let row: Row = sqlx::query_as(
        "select c.type, c.last_seq, c.members, c.deleted_at, \
            (select p.role from participants p \
                where p.conversation_id = c.id and p.user_id = $2 and p.left_seq is null limit 1) as own_role, \
            exists (select 1 from participants p where p.conversation_id = c.id and p.user_id = $2) as was_member, \
            greatest(date_trunc('milliseconds', clock_timestamp()), c.last_event_at) as now \
         from conversations c where c.id = $1",
    )
    .bind(id.0)
    .bind(caller.user.as_str())
    .fetch_one(tx)
    .await?;
    Ok(Locked {
        r#type: row
            .conversation_type
            .parse()
            .map_err(|_unknown| CommandError::Stored("a conversation's type"))?,
        last_seq: row.last_seq.cast_unsigned(),
        members: u64::try_from(row.members).unwrap_or_default(),
        deleted_at: row.deleted_at.map(Timestamp::new),
        role: row.own_role.as_deref().map(role).transpose()?,
        was_member: row.was_member,
        now: Timestamp::new(row.now),
    })
}
