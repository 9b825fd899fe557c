//! Reading logs: histories for people, ranges for gateways.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::query::{Answer, EncodedEvent, History, ReadEvents};
use sqlx::PgPool;
use uuid::Uuid;

use super::{EVENT_COLUMNS, EVENT_TARGET, EventRow, ROOM, entry_of};
use crate::error::CommandError;

/// Rows that a range of a log has at most; the payloads of those behind the byte bound are not read.
///
/// Around its payload an encoded event has some 600 bytes, and its actor twice: a character may take two when escaped. An edit
/// carries the payload of its message.
fn range() -> String {
    format!(
        "select * from ( \
            select e.*, sum(octet_length(e.payload) + coalesce(octet_length(e.target_payload), 0) \
                + 4 * octet_length(e.actor) + 700) over (order by e.seq) as bytes from ( \
                select {EVENT_COLUMNS} from events e join conversations c on c.id = e.conversation_id {EVENT_TARGET} \
                where e.conversation_id = $1 and c.tenant = $2 and e.seq > $3 and e.seq <= $4 order by e.seq limit 1000 \
            ) e \
        ) e where bytes <= $5 or seq = $3 + 1 order by seq"
    )
}

/// Events of a range, as many as fit.
pub(super) async fn read(pool: &PgPool, read: &ReadEvents) -> Result<Answer, CommandError> {
    let rows: Vec<EventRow> = sqlx::query_as(sqlx::AssertSqlSafe(range()))
        .bind(read.conversation.0)
        .bind(read.tenant.as_str())
        .bind(read.after.cast_signed())
        .bind(i64::try_from(read.up_to).unwrap_or(i64::MAX))
        .bind(i64::try_from(ROOM).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    let events = rows
        .iter()
        .map(|row| encoded(read.conversation.0, row))
        .collect::<Result<_, _>>()?;
    Ok(Answer::Events { events })
}

fn encoded(conversation: Uuid, row: &EventRow) -> Result<EncodedEvent, CommandError> {
    let actor = row
        .actor
        .parse()
        .map_err(|_bad| CommandError::Stored("a user id"))?;
    let entry =
        entry_of(conversation, row, &actor).ok_or(CommandError::Stored("an event's type"))?;
    Ok(EncodedEvent {
        seq: entry.seq,
        id: EventId(row.id),
        r#type: entry.event_type,
        json: JsonText::trusted(entry.encode()),
    })
}

/// The bytes are those of [`range`]; `found` counts what there is for the page, one more than asked included.
const HISTORY: &str = "\
    select seq, id, type, actor, client_id, created_at, edited_at, deleted_at, payload, found from ( \
        select e.*, sum(octet_length(e.payload) + 4 * octet_length(e.actor) + 640) over (order by e.seq desc) as bytes, \
            row_number() over (order by e.seq desc) as n, count(*) over () as found from ( \
            select e.* from events e where e.conversation_id = $1 and e.type = 'message.created' \
                and e.seq < $2 and e.seq > $3 \
                and ($4::text is null or e.actor = $4) and ($5::text is null or starts_with(e.payload, $5)) \
                and ($6::timestamptz is null or e.created_at >= $6) and ($7::timestamptz is null or e.created_at < $7) \
            order by e.seq desc limit $8 \
        ) e \
    ) e where bytes <= $9 or n = 1 order by seq desc";

/// A conversation's messages, newest first: for its members only.
pub(super) async fn history(pool: &PgPool, history: &History) -> Result<Answer, CommandError> {
    let before = match &history.cursor {
        Some(cursor) => Some(seq_of(cursor).ok_or_else(|| Failure::of(Code::InvalidCursor))?),
        None => None,
    };
    let before = [before, history.before].into_iter().flatten().min();
    let mut tx = pool
        .begin_with("begin isolation level repeatable read read only")
        .await?;
    may_read(&mut tx, &history.caller, history.conversation).await?;
    let kind = history
        .kind
        .as_deref()
        .map(serde_json::to_string)
        .transpose()?;
    let limit = i64::from(history.limit);
    let rows: Vec<Found> = sqlx::query_as(HISTORY)
        .bind(history.conversation.0)
        .bind(before.map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX)))
        .bind(
            history
                .after
                .map_or(0, |seq| i64::try_from(seq).unwrap_or(i64::MAX)),
        )
        .bind(history.sender.as_ref().map(|sender| sender.as_str()))
        .bind(kind.map(|kind| format!("{{\"kind\":{kind},")))
        .bind(history.from.map(|from| from.to_datetime()))
        .bind(history.to.map(|to| to.to_datetime()))
        .bind(limit + 1)
        .bind(i64::try_from(ROOM).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
    let limit = usize::try_from(history.limit).unwrap_or(usize::MAX);
    let found = rows.first().map_or(0, |row| row.found.cast_unsigned());
    let shown = rows.get(..limit.min(rows.len())).unwrap_or_default();
    let items = shown
        .iter()
        .map(|row| message(history.conversation, &row.event))
        .collect::<Result<_, _>>()?;
    let next_cursor = shown
        .last()
        .filter(|_| found > shown.len() as u64)
        .map(|row| format!("m{}", row.event.seq));
    Ok(Answer::Page { items, next_cursor })
}

/// A row of [`HISTORY`].
#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(flatten)]
    event: EventRow,
    found: i64,
}

fn message(conversation: ConversationId, row: &EventRow) -> Result<JsonText, CommandError> {
    let actor = row
        .actor
        .parse()
        .map_err(|_bad| CommandError::Stored("a user id"))?;
    let entry =
        entry_of(conversation.0, row, &actor).ok_or(CommandError::Stored("an event's type"))?;
    Ok(JsonText::trusted(entry.encode_message()))
}

fn seq_of(cursor: &str) -> Option<u64> {
    cursor.strip_prefix('m')?.parse().ok()
}

/// Refuses who is no member: nothing is told of a conversation to strangers, its deletion to those who were members.
pub(super) async fn may_read(
    tx: &mut sqlx::PgConnection,
    caller: &Caller,
    conversation: ConversationId,
) -> Result<(), CommandError> {
    let found: Option<(bool, bool, bool)> = sqlx::query_as(
        "select c.deleted_at is not null, \
            exists (select 1 from participants p \
                where p.conversation_id = c.id and p.user_id = $3 and p.left_seq is null), \
            exists (select 1 from participants p where p.conversation_id = c.id and p.user_id = $3) \
         from conversations c where c.id = $1 and c.tenant = $2",
    )
    .bind(conversation.0)
    .bind(caller.tenant.as_str())
    .bind(caller.user.as_str())
    .fetch_optional(tx)
    .await?;
    match found {
        Some((true, _, was_member)) if was_member || caller.admin => {
            Err(Failure::of(Code::ConversationDeleted).into())
        }
        Some((false, is_member, _)) if is_member || caller.admin => Ok(()),
        Some(_) | None => Err(Failure::of(Code::ConversationNotFound).into()),
    }
}
