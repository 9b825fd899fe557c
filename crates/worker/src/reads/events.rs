//! Reading logs: for people, and ranges for gateways.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::query::{Answer, EncodedEvent, Log, LogRange, ReadEvents, ReadRanges};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{EVENT_COLUMNS, EVENT_TARGET, EventRow, ROOM, entry_of};
use crate::error::CommandError;

/// Events in one answer.
const MOST: i64 = 1000;

/// The events of a range, oldest first; the payloads of those behind the byte bound are not read, but the first one always is.
///
/// Around its payload an encoded event has some 600 bytes, and its actor twice: a character may take two when escaped. An edit
/// carries the payload of its message.
pub(super) fn range() -> String {
    format!(
        "select * from ( \
            select e.*, sum(octet_length(e.payload) + coalesce(octet_length(e.target_payload), 0) \
                + 4 * octet_length(e.actor) + 700) over (order by e.seq) as bytes from ( \
                select {EVENT_COLUMNS} from events e {EVENT_TARGET} \
                where e.conversation_id = (select c.id from conversations c where c.id = $1 and c.tenant = $2) \
                    and e.seq > $3 and e.seq <= $4 order by e.seq limit $6 \
            ) e \
        ) e where bytes <= $5 or seq - 1 = $3 order by seq"
    )
}

/// Events of a range, as many as fit.
pub(super) async fn read(
    connection: &mut PgConnection,
    read: &ReadEvents,
) -> Result<Answer, CommandError> {
    let rows: Vec<EventRow> = sqlx::query_as(sqlx::AssertSqlSafe(range()))
        .bind(read.conversation.0)
        .bind(read.tenant.as_str())
        .bind(i64::try_from(read.after).unwrap_or(i64::MAX))
        .bind(i64::try_from(read.up_to).unwrap_or(i64::MAX))
        .bind(i64::try_from(ROOM).unwrap_or(i64::MAX))
        .bind(MOST)
        .fetch_all(connection)
        .await?;
    let events = rows
        .iter()
        .map(|row| encoded(read.conversation.0, row))
        .collect::<Result<_, _>>()?;
    Ok(Answer::Events { events })
}

/// The events of several ranges in one statement, oldest first within each, as [`range`] has them.
///
/// Seqs have no gaps, so each range is known to hold so many before it is looked at: together they read `$6` events at most, and what
/// a sort takes is bounded by that, however many ranges there are.
pub(super) fn several_ranges() -> String {
    format!(
        "select * from ( \
            select e.*, sum(octet_length(e.payload) + coalesce(octet_length(e.target_payload), 0) \
                + 4 * octet_length(e.actor) + 700) over (order by e.n, e.seq) as bytes from ( \
                select r.n, r.before + e.seq - r.after = 1 as is_first, e.* from ( \
                    select r.*, sum(r.held) over (order by r.n)::bigint - r.held as before from ( \
                        select r.n, r.conversation, r.after, \
                            least(greatest(least(r.up_to, c.last_seq) - r.after, 0), $6) as held \
                        from unnest($1::uuid[], $3::bigint[], $4::bigint[]) with ordinality as r(conversation, after, up_to, n) \
                        cross join lateral (select c.last_seq from conversations c \
                            where c.id = r.conversation and c.tenant = $2 limit 1) c \
                    ) r \
                ) r cross join lateral (select {EVENT_COLUMNS} from events e {EVENT_TARGET} \
                    where e.conversation_id = r.conversation and e.seq > r.after \
                        and e.seq <= r.after + least(r.held, $6 - r.before) order by e.seq limit $6 \
                ) e \
            ) e \
        ) e where bytes <= $5 or is_first order by n, seq"
    )
}

/// An event of one of several ranges.
#[derive(sqlx::FromRow)]
struct RangeRow {
    n: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

/// Events of several ranges, as many as fit: what is missing behind the last one is to be asked for again.
pub(super) async fn ranges(
    connection: &mut PgConnection,
    read: &ReadRanges,
) -> Result<Answer, CommandError> {
    let seqs = |seq: fn(&LogRange) -> Seq| -> Vec<i64> {
        let bound = |range| i64::try_from(seq(range)).unwrap_or(i64::MAX);
        read.ranges.iter().map(bound).collect()
    };
    let ids = read.ranges.iter().map(|range| range.conversation.0);
    // A range without events takes a byte.
    let room = ROOM.saturating_sub(read.ranges.len());
    let rows: Vec<RangeRow> = sqlx::query_as(sqlx::AssertSqlSafe(several_ranges()))
        .bind(ids.collect::<Vec<_>>())
        .bind(read.tenant.as_str())
        .bind(seqs(|range| range.after))
        .bind(seqs(|range| range.up_to))
        .bind(i64::try_from(room).unwrap_or(i64::MAX))
        .bind(MOST)
        .fetch_all(connection)
        .await?;
    let mut rows = rows.into_iter().peekable();
    let mut answer = Vec::with_capacity(read.ranges.len());
    for (range, n) in read.ranges.iter().zip(1..) {
        let mut events = Vec::new();
        while let Some(row) = rows.next_if(|row| row.n == n) {
            events.push(encoded(range.conversation.0, &row.event)?);
        }
        answer.push(events);
    }
    Ok(Answer::Ranges(answer))
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
        target: entry.target_seq,
        json: JsonText::trusted(entry.encode()),
    })
}

/// A conversation's log as clients read it: for its members only.
pub(super) async fn log(connection: &mut PgConnection, log: &Log) -> Result<Answer, CommandError> {
    let head = may_read(connection, &log.caller, log.conversation).await?;
    let rows: Vec<EventRow> = sqlx::query_as(sqlx::AssertSqlSafe(range()))
        .bind(log.conversation.0)
        .bind(log.caller.tenant.as_str())
        .bind(i64::try_from(log.after).unwrap_or(i64::MAX))
        .bind(head.cast_signed())
        .bind(i64::try_from(ROOM).unwrap_or(i64::MAX))
        .bind(i64::from(log.limit).min(MOST))
        .fetch_all(&mut *connection)
        .await?;
    let events = rows
        .iter()
        .map(|row| encoded(log.conversation.0, row).map(|event| event.json))
        .collect::<Result<_, _>>()?;
    Ok(Answer::Log { events, head })
}

/// Refuses who is no member: nothing is told of a conversation to strangers, its deletion to those who were members. Gives the
/// conversation's head.
pub(super) async fn may_read(
    tx: &mut PgConnection,
    caller: &Caller,
    conversation: ConversationId,
) -> Result<Seq, CommandError> {
    let found: Option<(i64, bool, bool, bool)> = sqlx::query_as(
        "select c.last_seq, c.deleted_at is not null, \
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
        Some((_, true, _, was_member)) if was_member || caller.admin => {
            Err(Failure::of(Code::ConversationDeleted).into())
        }
        Some((head, false, is_member, _)) if is_member || caller.admin => Ok(head.cast_unsigned()),
        Some(_) | None => Err(Failure::of(Code::ConversationNotFound).into()),
    }
}
