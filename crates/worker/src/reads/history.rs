//! A conversation's messages, newest first.

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Answer, History};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;

use super::events::may_read;
use super::{EventRow, ROOM, message};
use crate::error::CommandError;

/// Events that a page looks at. One of whose events few are asked for has few, or none, and a cursor to go on.
pub(super) const EXAMINED: Seq = 1000;

/// The bytes are those of a range of a log; `found` counts what there is for the page, one more than asked included.
pub(crate) const STATEMENT: &str = "\
    select seq, id, type, actor, client_id, created_at, edited_at, deleted_at, version, payload, found from ( \
        select e.*, sum(octet_length(e.payload) + 4 * octet_length(e.actor) + 640) over (order by e.seq desc) as bytes, \
            row_number() over (order by e.seq desc) as n, count(*) over () as found from ( \
            select e.* from events e where e.conversation_id = $1 and e.type = 'message.created' \
                and e.seq >= $2 and e.seq < $3 and ($4::text is null or e.actor = $4) \
                and ($5::text is null or substr(e.payload, 1, length($5)) = $5) \
            order by e.seq desc limit $6 \
        ) e \
    ) e where bytes <= $7 or n = 1 order by seq desc";

/// A row of [`STATEMENT`].
#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(flatten)]
    event: EventRow,
    found: i64,
}

/// A conversation's messages, newest first: for its members only.
pub(super) async fn read(
    connection: &mut PgConnection,
    history: &History,
) -> Result<Answer, CommandError> {
    let cursor = match &history.cursor {
        Some(cursor) => Some(seq_of(cursor).ok_or_else(|| Failure::of(Code::InvalidCursor))?),
        None => None,
    };
    let head = may_read(connection, &history.caller, history.conversation).await?;
    let (lowest, above) = bounds(connection, history, head, cursor).await?;
    // Seqs have no gaps: so many seqs are so many events.
    let from = lowest.max(above.saturating_sub(EXAMINED));
    let kind = history
        .kind
        .as_deref()
        .map(serde_json::to_string)
        .transpose()?;
    let rows: Vec<Found> = sqlx::query_as(STATEMENT)
        .bind(history.conversation.0)
        .bind(from.cast_signed())
        .bind(above.cast_signed())
        .bind(history.sender.as_ref().map(|sender| sender.as_str()))
        .bind(kind.map(|kind| format!("{{\"kind\":{kind},")))
        .bind(i64::from(history.limit) + 1)
        .bind(i64::try_from(ROOM).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let limit = usize::try_from(history.limit).unwrap_or(usize::MAX);
    let found = rows.first().map_or(0, |row| row.found.cast_unsigned());
    let shown = rows.get(..limit.min(rows.len())).unwrap_or_default();
    let items = shown
        .iter()
        .map(|row| message(history.conversation, &row.event))
        .collect::<Result<_, _>>()?;
    let next = if found > shown.len() as u64 {
        shown.last().map(|row| row.event.seq.cast_unsigned())
    } else {
        Some(from).filter(|_| lowest < from && from < above)
    };
    let next_cursor = next.map(|seq| format!("m{seq}"));
    Ok(Answer::Page { items, next_cursor })
}

/// The lowest seq that is asked for, and the one above the highest.
async fn bounds(
    tx: &mut PgConnection,
    history: &History,
    head: Seq,
    cursor: Option<Seq>,
) -> Result<(Seq, Seq), CommandError> {
    let (mut lowest, mut above) = (1, head + 1);
    if let Some(after) = history.after {
        lowest = lowest.max(after.min(head) + 1);
    }
    if let Some(from) = history.from {
        lowest = lowest.max(since(tx, history.conversation, head, from).await?);
    }
    if let Some(to) = history.to {
        above = above.min(since(tx, history.conversation, head, to).await?);
    }
    for before in [history.before, cursor].into_iter().flatten() {
        above = above.min(before);
    }
    Ok((lowest, above))
}

/// The first seq that was stored at `at` or later; one above the head where there is none.
async fn since(
    tx: &mut PgConnection,
    conversation: ConversationId,
    head: Seq,
    at: Timestamp,
) -> Result<Seq, CommandError> {
    let (seq,): (i64,) = sqlx::query_as("select first_seq_since($1, $2, $3)")
        .bind(conversation.0)
        .bind(head.cast_signed())
        .bind(at.to_datetime())
        .fetch_one(tx)
        .await?;
    Ok(seq.cast_unsigned())
}

fn seq_of(cursor: &str) -> Option<Seq> {
    cursor.strip_prefix('m')?.parse().ok()
}
