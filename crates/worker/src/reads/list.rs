//! The caller's conversations, by their last message or by their creation.

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{EventId, UserId};
use confab_protocol::json::{JsonText, compact};
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder};
use confab_protocol::resource::{Conversation, ConversationType, MessageBody, MessagePreview};
use confab_protocol::timestamp::Timestamp;
use serde::Deserialize as _;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::ROOM;
use super::conversations::{ConversationRow, columns, conversation, members_shown};
use crate::error::CommandError;

/// Longest content that a preview shows, in bytes of JSON in its shortest form.
const PREVIEW: usize = 1024;
/// How much longer a text is at most when each of its characters is escaped.
const ESCAPED: usize = 6;
/// A stored message is not larger than this when its content is shown: of a larger one only the beginning is read.
const WHOLE: usize = ESCAPED * PREVIEW + limits::MESSAGE_METADATA + 1024;
/// Conversations that a page by creation looks at when only those of one type are asked for.
const EXAMINED: u32 = 1000;

/// The page by the last message, as (`id`, `last_message_at`): $1 tenant, $2 user, $3 types, $4 and $6 the id and time to stay below,
/// $5 how many.
///
/// `recents` has a time for each membership, and the last message lies within the minute that begins there (migrations/0012; a conversation
/// without messages has its beginning for one). So many as are wanted have their last message at or after the lowest time of the first so
/// many, read downwards; what could come before them began at most a minute below. Those without such a time, at infinity, are always looked
/// at. A worker of the version before moves that time with any event: then the message's own is the lower one.
const RECENT: &str = "\
    select c.id, c.last_message_at from unnest($3::text[]) as t(type) \
    cross join lateral ( \
        select r.conversation_id from recents r \
        where r.tenant = $1 and r.user_id = $2 and r.type = t.type and r.active_at <= $6 and r.active_at > coalesce(( \
            select f.active_at from unnest($3::text[]) as u(type) \
            cross join lateral ( \
                select least(r.active_at, c.last_message_at) as active_at from recents r \
                cross join lateral (select c.last_message_at from conversations c \
                    where c.id = r.conversation_id and (c.last_message_at, c.id) < ($6, $4) limit 1) c \
                where r.tenant = $1 and r.user_id = $2 and r.type = u.type and r.active_at <= $6 \
                order by r.active_at desc limit $5 \
            ) f order by f.active_at desc offset $5 - 1 limit 1 \
        ), '-infinity') - interval '1 minute' \
        union all \
        select r.conversation_id from recents r \
        where r.tenant = $1 and r.user_id = $2 and r.type = t.type and r.active_at = 'infinity' \
    ) r \
    cross join lateral (select c.id, c.last_message_at from conversations c \
        where c.id = r.conversation_id and (c.last_message_at, c.id) < ($6, $4) limit 1) c \
    order by c.last_message_at desc, c.id desc limit $5";

/// The page by creation, as (`id`, `last_message_at`): $6 is how many are looked at.
const CREATED: &str = "\
    select c.id, c.last_message_at from ( \
        select p.conversation_id from participants p \
        where p.tenant = $1 and p.user_id = $2 and p.left_seq is null and p.conversation_id < $4 \
        order by p.conversation_id desc limit $6 \
    ) p \
    cross join lateral (select c.id, c.last_message_at from conversations c \
        where c.id = p.conversation_id and c.type = any($3) limit 1) c \
    order by p.conversation_id desc limit $5";

/// The last one that a page by creation has looked at; none where there were fewer.
const LAST_EXAMINED: &str = "\
    select p.conversation_id from participants p \
    where p.tenant = $1 and p.user_id = $2 and p.left_seq is null and p.conversation_id < $3 \
    order by p.conversation_id desc offset $4 - 1 limit 1";

/// A page with what is shown of each conversation.
pub(super) fn statement(order: ListOrder) -> String {
    let (page, by) = match order {
        ListOrder::Recent => (RECENT, "k.last_message_at desc, k.id desc"),
        ListOrder::Created => (CREATED, "k.id desc"),
    };
    format!(
        "select {}, m.message_id, m.message_seq, m.message_actor, m.message_at, m.message_deleted_at, \
            m.message_payload, m.message_is_whole \
         from ({page}) k \
         cross join lateral (select c.* from conversations c where c.id = k.id limit 1) c \
         cross join lateral (select p.* from participants p \
            where p.conversation_id = k.id and p.user_id = $2 and p.left_seq is null limit 1) p \
         left join lateral (select m.id as message_id, m.seq as message_seq, m.actor as message_actor, \
                m.created_at as message_at, m.deleted_at as message_deleted_at, \
                octet_length(m.payload) <= {WHOLE} as message_is_whole, \
                case when octet_length(m.payload) <= {WHOLE} then m.payload else substr(m.payload, 1, 512) end \
                    as message_payload \
            from events m where m.conversation_id = k.id and m.seq = c.last_message_seq limit 1) m on true \
         {} \
         order by {by}",
        columns(),
        members_shown()
    )
}

/// The caller's conversations, those it has left and deleted ones not among them.
pub(super) async fn read(
    connection: &mut PgConnection,
    list: &ListConversations,
) -> Result<Answer, CommandError> {
    let after = match &list.cursor {
        Some(cursor) => {
            Position::parse(cursor, list.order).ok_or_else(|| Failure::of(Code::InvalidCursor))?
        }
        None => Position::BEGINNING,
    };
    match list.order {
        ListOrder::Recent => recent(connection, list, after).await,
        ListOrder::Created => created(connection, list, after).await,
    }
}

async fn recent(
    connection: &mut PgConnection,
    list: &ListConversations,
    after: Position,
) -> Result<Answer, CommandError> {
    let rows: Vec<Listed> = sqlx::query_as(sqlx::AssertSqlSafe(statement(ListOrder::Recent)))
        .bind(list.caller.tenant.as_str())
        .bind(list.caller.user.as_str())
        .bind(types(list.r#type))
        .bind(after.id)
        .bind(i64::from(list.limit) + 1)
        .bind(after.at)
        .fetch_all(connection)
        .await?;
    page_of(rows, list, None)
}

async fn created(
    connection: &mut PgConnection,
    list: &ListConversations,
    after: Position,
) -> Result<Answer, CommandError> {
    let wanted = list.limit.saturating_add(1);
    let examined = i64::from(list.r#type.map_or(wanted, |_| wanted.max(EXAMINED)));
    let rows: Vec<Listed> = sqlx::query_as(sqlx::AssertSqlSafe(statement(ListOrder::Created)))
        .bind(list.caller.tenant.as_str())
        .bind(list.caller.user.as_str())
        .bind(types(list.r#type))
        .bind(after.id)
        .bind(i64::from(wanted))
        .bind(examined)
        .fetch_all(&mut *connection)
        .await?;
    let mut beyond = None;
    if rows.len() < wanted as usize {
        let last: Option<(Uuid,)> = sqlx::query_as(LAST_EXAMINED)
            .bind(list.caller.tenant.as_str())
            .bind(list.caller.user.as_str())
            .bind(after.id)
            .bind(examined)
            .fetch_optional(&mut *connection)
            .await?;
        beyond = last.map(|(id,)| Position { id, ..after });
    }
    page_of(rows, list, beyond)
}

/// All types where none is asked for.
fn types(one: Option<ConversationType>) -> Vec<&'static str> {
    use ConversationType::{Channel, Direct, Group};
    let all = [Direct, Group, Channel].into_iter();
    all.filter(|r#type| one.is_none_or(|one| one == *r#type))
        .map(ConversationType::as_str)
        .collect()
}

/// A listed conversation with its last message, as they are stored.
#[derive(Debug, sqlx::FromRow)]
struct Listed {
    #[sqlx(flatten)]
    conversation: ConversationRow,
    #[sqlx(flatten)]
    message: LastMessage,
}

#[derive(Debug, sqlx::FromRow)]
struct LastMessage {
    message_id: Option<Uuid>,
    message_seq: Option<i64>,
    message_actor: Option<String>,
    message_at: Option<OffsetDateTime>,
    message_deleted_at: Option<OffsetDateTime>,
    message_payload: Option<String>,
    message_is_whole: Option<bool>,
}

fn listed(row: Listed, user: &UserId) -> Result<Conversation, CommandError> {
    Ok(Conversation {
        last_message: preview(row.message)?,
        ..conversation(row.conversation, user)?
    })
}

fn preview(row: LastMessage) -> Result<Option<MessagePreview>, CommandError> {
    let (Some(id), Some(seq), Some(actor), Some(at), Some(payload)) = (
        row.message_id,
        row.message_seq,
        row.message_actor,
        row.message_at,
        row.message_payload,
    ) else {
        return Ok(None);
    };
    let (kind, content) = if row.message_is_whole == Some(true) {
        let body: MessageBody = serde_json::from_str(&payload)?;
        (body.kind, body.content)
    } else {
        (kind_of(&payload)?, None)
    };
    Ok(Some(MessagePreview {
        id: EventId(id),
        seq: seq.cast_unsigned(),
        sender: actor
            .parse::<UserId>()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        kind,
        content: content.and_then(shown),
        created_at: Timestamp::new(at),
        deleted_at: row.message_deleted_at.map(Timestamp::new),
    }))
}

/// The content where a preview shows it: as it stands where it is short, else in its shortest form.
fn shown(content: JsonText) -> Option<JsonText> {
    let length = content.as_str().len();
    if length <= PREVIEW {
        return Some(content);
    }
    // White space aside, a longer one has no form that is short enough.
    let short = compact(content.as_str()).filter(|short| short.len() <= PREVIEW);
    short.map(JsonText::trusted)
}

/// The kind of a message of which only the beginning was read: it stands first.
fn kind_of(beginning: &str) -> Result<String, CommandError> {
    let value = beginning.strip_prefix(r#"{"kind":"#).unwrap_or_default();
    Ok(String::deserialize(
        &mut serde_json::Deserializer::from_str(value),
    )?)
}

/// The page, cut to what fits. `beyond` is where to go on when the rows are all that was found, and more was not looked at.
fn page_of(
    rows: Vec<Listed>,
    list: &ListConversations,
    beyond: Option<Position>,
) -> Result<Answer, CommandError> {
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let count = rows.len();
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in rows.into_iter().take(limit) {
        let at = Position {
            at: row.conversation.last_message_at,
            id: row.conversation.id,
        };
        let item = JsonText::of(&listed(row, &list.caller.user)?)?;
        bytes += item.as_str().len() + 8;
        if bytes > ROOM && !items.is_empty() {
            break;
        }
        items.push(item);
        last = Some(at);
    }
    let next = if items.len() < count { last } else { beyond };
    let next_cursor = next.map(|position| position.write(list.order));
    Ok(Answer::Page { items, next_cursor })
}

/// Where a page of a list ended. By creation only the id counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    at: OffsetDateTime,
    id: Uuid,
}

impl Position {
    /// Before the first one: all stand below it.
    const BEGINNING: Self = Self {
        at: datetime!(9999-12-31 00:00 UTC),
        id: Uuid::max(),
    };

    fn write(self, order: ListOrder) -> String {
        let id = self.id.simple();
        match order {
            ListOrder::Recent => format!("r{}-{id}", self.at.unix_timestamp_nanos() / 1000),
            ListOrder::Created => format!("c{id}"),
        }
    }

    fn parse(cursor: &str, order: ListOrder) -> Option<Self> {
        match order {
            ListOrder::Created => Some(Self {
                id: Uuid::try_parse(cursor.strip_prefix('c')?).ok()?,
                ..Self::BEGINNING
            }),
            ListOrder::Recent => {
                let (micros, id) = cursor.strip_prefix('r')?.split_once('-')?;
                let nanos = micros.parse::<i64>().ok().map(i128::from)? * 1000;
                Some(Self {
                    at: OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?,
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
            at,
            id: Uuid::from_u128(7),
        };
        let recent = position.write(ListOrder::Recent);
        assert_eq!(Position::parse(&recent, ListOrder::Recent), Some(position));
        assert_eq!(Position::parse(&recent, ListOrder::Created), None);
        let created = position.write(ListOrder::Created);
        assert_eq!(
            Position::parse(&created, ListOrder::Created),
            Some(Position {
                id: position.id,
                ..Position::BEGINNING
            })
        );
        for junk in ["", "r", "r1-x", "c7", "r99999999999999999999-0"] {
            assert_eq!(Position::parse(junk, ListOrder::Recent), None);
        }
    }

    #[test]
    fn preview_is_measured_without_escapes() {
        let escaped = |count| JsonText::trusted(format!("\"{}\"", "\\u65e5".repeat(count)));
        let plain = |count| JsonText::trusted(format!("\"{}\"", "日".repeat(count)));
        assert_eq!(
            shown(escaped(170)).as_ref(),
            Some(&escaped(170)),
            "1,022 bytes"
        );
        assert_eq!(shown(escaped(340)), Some(plain(340)));
        assert_eq!(shown(escaped(341)), None);
    }

    #[test]
    fn the_kind_of_a_large_message_is_read_from_its_beginning() {
        let beginning = r#"{"kind":"x-a\"b","encryptedContent":"AAAAAAAA"#;
        assert_eq!(kind_of(beginning).unwrap(), "x-a\"b");
        assert!(kind_of(r#"{"kind":"x-"#).is_err());
        assert!(kind_of("").is_err());
    }
}
