//! One conversation, or the caller's list.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder};
use confab_protocol::resource::{Conversation, MessageBody, MessagePreview};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::events::may_read;
use super::{ROOM, participants_cursor};
use crate::commit::{ParticipantRow, Shown, participant, role};
use crate::error::CommandError;

/// A conversation with what it is to the caller, as it is stored.
#[derive(Debug, sqlx::FromRow)]
struct ConversationRow {
    id: Uuid,
    #[sqlx(rename = "type")]
    conversation_type: String,
    metadata: String,
    version: i64,
    created_by: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    deleted_at: Option<OffsetDateTime>,
    last_seq: i64,
    last_event_at: OffsetDateTime,
    members: i32,
    role: Option<String>,
    joined_at: Option<OffsetDateTime>,
    last_read_seq: Option<i64>,
    unread: Option<i64>,
}

/// Unread messages are those of others above what was read; counted up to 1,000, and over so many events at most.
const COLUMNS: &str = "c.id, c.type, c.metadata, c.version, c.created_by, c.created_at, c.updated_at, c.deleted_at, \
    c.last_seq, c.last_event_at, c.members, p.role, p.joined_at, p.last_read_seq, \
    case when p.role is null then null else (select count(*) from ( \
        select 1 from (select e.type, e.actor from events e \
            where e.conversation_id = c.id and e.seq > p.last_read_seq order by e.seq limit 10000) e \
        where e.type = 'message.created' and e.actor <> $2 limit 1000) u) end as unread";

fn conversation(row: ConversationRow) -> Result<Conversation, CommandError> {
    Ok(Conversation {
        id: ConversationId(row.id),
        r#type: row
            .conversation_type
            .parse()
            .map_err(|_bad| CommandError::Stored("a conversation's type"))?,
        metadata: JsonText::trusted(row.metadata),
        version: row.version.cast_unsigned(),
        created_by: row
            .created_by
            .parse()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        created_at: Timestamp::new(row.created_at),
        updated_at: Timestamp::new(row.updated_at),
        deleted_at: row.deleted_at.map(Timestamp::new),
        last_seq: row.last_seq.cast_unsigned(),
        last_event_at: Timestamp::new(row.last_event_at),
        role: row.role.as_deref().map(role).transpose()?,
        joined_at: row.joined_at.map(Timestamp::new),
        last_read_seq: row.last_read_seq.map(i64::cast_unsigned),
        unread_count: row
            .unread
            .map(|unread| unread.cast_unsigned().min(limits::UNREAD)),
        last_message: None,
    })
}

/// One conversation with its first participants.
pub(super) async fn get(
    pool: &PgPool,
    caller: &Caller,
    id: ConversationId,
) -> Result<Answer, CommandError> {
    let mut tx = pool
        .begin_with("begin isolation level repeatable read read only")
        .await?;
    may_read(&mut tx, caller, id).await?;
    let text = format!(
        "select {COLUMNS} from conversations c \
         left join participants p on p.conversation_id = c.id and p.user_id = $2 and p.left_seq is null where c.id = $1"
    );
    let row: ConversationRow = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(id.0)
        .bind(caller.user.as_str())
        .fetch_one(&mut *tx)
        .await?;
    let members = usize::try_from(row.members).unwrap_or_default();
    let rows: Vec<(ParticipantRow, i64, i32)> = participants(&mut tx, id).await?;
    let last = rows
        .last()
        .map(|(_, joined, position)| (joined.cast_unsigned(), position.unsigned_abs().into()));
    let shown = rows
        .into_iter()
        .map(|(row, _, _)| participant(row))
        .collect::<Result<Vec<_>, _>>()?;
    let cursor = last
        .filter(|_| members > shown.len())
        .map(|(joined, place)| participants_cursor(joined, place));
    let body = Shown {
        conversation: conversation(row)?,
        participants: shown,
        participants_next_cursor: cursor,
    };
    Ok(Answer::Object(JsonText::of(&body)?))
}

async fn participants(
    tx: &mut sqlx::PgConnection,
    id: ConversationId,
) -> Result<Vec<(ParticipantRow, i64, i32)>, CommandError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        user_id: String,
        role: String,
        joined_at: OffsetDateTime,
        left_at: Option<OffsetDateTime>,
        last_read_seq: i64,
        joined_seq: i64,
        position: i32,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select user_id, role, joined_at, left_at, last_read_seq, joined_seq, position from participants \
         where conversation_id = $1 and left_seq is null order by joined_seq, position limit $2",
    )
    .bind(id.0)
    .bind(i64::try_from(limits::PARTICIPANTS_SHOWN).unwrap_or(i64::MAX))
    .fetch_all(tx)
    .await?;
    let split = |row: Row| {
        let shown = (
            row.user_id,
            row.role,
            row.joined_at,
            row.left_at,
            row.last_read_seq,
        );
        (shown, row.joined_seq, row.position)
    };
    Ok(rows.into_iter().map(split).collect())
}

/// The last message of a listed conversation, as it is stored.
#[derive(Debug, sqlx::FromRow)]
struct Listed {
    #[sqlx(flatten)]
    conversation: ConversationRow,
    message_id: Option<Uuid>,
    message_seq: Option<i64>,
    message_actor: Option<String>,
    message_at: Option<OffsetDateTime>,
    message_deleted_at: Option<OffsetDateTime>,
    message_payload: Option<String>,
}

/// Longest content that a preview shows, in bytes of JSON.
const PREVIEW: usize = 1024;

fn listed(row: Listed) -> Result<Conversation, CommandError> {
    let last_message = match (
        row.message_id,
        row.message_seq,
        row.message_actor,
        row.message_at,
        row.message_payload,
    ) {
        (Some(id), Some(seq), Some(actor), Some(at), Some(payload)) => {
            let body: MessageBody = serde_json::from_str(&payload)?;
            Some(MessagePreview {
                id: EventId(id),
                seq: seq.cast_unsigned(),
                sender: actor
                    .parse::<UserId>()
                    .map_err(|_bad| CommandError::Stored("a user id"))?,
                kind: body.kind,
                content: body
                    .content
                    .filter(|content| content.as_str().len() <= PREVIEW),
                created_at: Timestamp::new(at),
                deleted_at: row.message_deleted_at.map(Timestamp::new),
            })
        }
        _ => None,
    };
    Ok(Conversation {
        last_message,
        ..conversation(row.conversation)?
    })
}

/// The caller's conversations, those it has left and deleted ones not among them.
pub(super) async fn list(pool: &PgPool, list: &ListConversations) -> Result<Answer, CommandError> {
    let after = match &list.cursor {
        Some(cursor) => Some(
            Position::parse(cursor, list.order).ok_or_else(|| Failure::of(Code::InvalidCursor))?,
        ),
        None => None,
    };
    let (order, page) = match list.order {
        ListOrder::Recent => (
            "c.last_event_at desc, c.id desc",
            "($4::uuid is null or (c.last_event_at, c.id) < ($5, $4))",
        ),
        ListOrder::Created => (
            "p.conversation_id desc",
            "($4::uuid is null or p.conversation_id < $4) and $5::timestamptz is null",
        ),
    };
    let text = format!(
        "select {COLUMNS}, m.id as message_id, m.seq as message_seq, m.actor as message_actor, m.created_at as message_at, \
            m.deleted_at as message_deleted_at, m.payload as message_payload \
         from (select c.*, p.conversation_id, p.role, p.joined_at, p.last_read_seq from participants p \
            join conversations c on c.id = p.conversation_id \
            where p.tenant = $1 and p.user_id = $2 and p.left_seq is null and c.deleted_at is null \
                and ($3::text is null or c.type = $3) and {page} \
            order by {order} limit $6) c \
         cross join lateral (select c.role, c.joined_at, c.last_read_seq) p \
         left join events m on m.conversation_id = c.id and m.seq = c.last_message_seq \
         order by {}",
        order.replace("p.conversation_id", "c.id")
    );
    let limit = i64::from(list.limit);
    let rows: Vec<Listed> = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(list.caller.tenant.as_str())
        .bind(list.caller.user.as_str())
        .bind(list.r#type.map(|r#type| r#type.as_str()))
        .bind(after.map(|position| position.id))
        .bind(after.and_then(|position| position.at))
        .bind(limit + 1)
        .fetch_all(pool)
        .await?;
    page_of(rows, list)
}

fn page_of(rows: Vec<Listed>, list: &ListConversations) -> Result<Answer, CommandError> {
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let count = rows.len();
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in rows.into_iter().take(limit) {
        let at = Position {
            at: Some(row.conversation.last_event_at),
            id: row.conversation.id,
        };
        let item = JsonText::of(&listed(row)?)?;
        bytes += item.as_str().len() + 8;
        if bytes > ROOM && !items.is_empty() {
            break;
        }
        items.push(item);
        last = Some(at);
    }
    let next_cursor = last
        .filter(|_| items.len() < count)
        .map(|position| position.write(list.order));
    Ok(Answer::Page { items, next_cursor })
}

/// Where a page of a list ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    at: Option<OffsetDateTime>,
    id: Uuid,
}

impl Position {
    fn write(self, order: ListOrder) -> String {
        match (order, self.at) {
            (ListOrder::Recent, Some(at)) => {
                format!("r{}-{}", at.unix_timestamp_nanos() / 1000, self.id.simple())
            }
            _ => format!("c{}", self.id.simple()),
        }
    }

    fn parse(cursor: &str, order: ListOrder) -> Option<Self> {
        match order {
            ListOrder::Created => Some(Self {
                at: None,
                id: Uuid::try_parse(cursor.strip_prefix('c')?).ok()?,
            }),
            ListOrder::Recent => {
                let (micros, id) = cursor.strip_prefix('r')?.split_once('-')?;
                let nanos = micros.parse::<i64>().ok().map(i128::from)? * 1000;
                let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
                Some(Self {
                    at: Some(at),
                    id: Uuid::try_parse(id).ok()?,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_only_good_for_the_order_it_came_from() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_764_000_000_123_456_000).unwrap();
        let position = Position {
            at: Some(at),
            id: Uuid::from_u128(7),
        };
        let recent = position.write(ListOrder::Recent);
        assert_eq!(Position::parse(&recent, ListOrder::Recent), Some(position));
        assert_eq!(Position::parse(&recent, ListOrder::Created), None);
        let created = position.write(ListOrder::Created);
        assert_eq!(
            Position::parse(&created, ListOrder::Created),
            Some(Position {
                at: None,
                ..position
            })
        );
        for junk in ["", "r", "r1-x", "c7", "r99999999999999999999-0"] {
            assert_eq!(Position::parse(junk, ListOrder::Recent), None);
        }
    }
}
