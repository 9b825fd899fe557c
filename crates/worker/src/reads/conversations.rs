//! One conversation with its first participants.

use confab_protocol::command::Caller;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::query::Answer;
use confab_protocol::resource::{Conversation, ConversationType, MemberPreview};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::events::may_read;
use super::participants_cursor;
use crate::commit::{ParticipantRow, Shown, participant, role};
use crate::error::CommandError;

/// A conversation with what it is to the caller, as it is stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ConversationRow {
    pub(super) id: Uuid,
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
    pub(super) last_message_at: OffsetDateTime,
    members: i32,
    role: Option<String>,
    joined_at: Option<OffsetDateTime>,
    last_read_seq: Option<i64>,
    unread: Option<i64>,
    member_ids: Option<Vec<String>>,
    member_roles: Option<Vec<String>>,
}

/// How many messages the caller `$2`, a participant `p` of a conversation `c`, has not read up to the event `up_to`, with which the
/// conversation has so many `messages`.
pub(crate) fn unread(up_to: &str, messages: &str) -> String {
    format!(
        "case when p.last_read_seq >= {up_to} then 0 \
            else unread_messages(c.id, $2, p.last_read_seq, {messages}, {}) end",
        limits::MAX_UNREAD_COUNT
    )
}

/// The members of a conversation `c` that are shown with it: one index scan of so many rows. Of a direct conversation both, of whom
/// [`conversation`] leaves out the caller.
pub(super) fn members_shown() -> String {
    format!(
        "left join lateral (select array_agg(m.user_id) as member_ids, array_agg(m.role) as member_roles from ( \
            select m.user_id, m.role from participants m \
            where m.conversation_id = c.id and m.left_seq is null and m.position >= 0 \
            order by m.joined_seq, m.position \
            limit case c.type when 'direct' then 2 when 'group' then {} else 0 end) m) shown on true",
        limits::MEMBERS_SHOWN
    )
}

/// The columns of a [`ConversationRow`], behind [`members_shown`].
pub(super) fn columns() -> String {
    format!(
        "c.id, c.type, c.metadata, c.version, c.created_by, c.created_at, c.updated_at, c.deleted_at, c.last_seq, c.last_event_at, \
            c.last_message_at, c.members, shown.member_ids, shown.member_roles, p.role, p.joined_at, p.last_read_seq, case when p.role is null then null else {} end as unread",
        unread("c.last_seq", "c.messages")
    )
}

/// The conversation of a row, as this user sees it.
pub(super) fn conversation(
    row: ConversationRow,
    user: &UserId,
) -> Result<Conversation, CommandError> {
    let r#type = row
        .conversation_type
        .parse()
        .map_err(|_bad| CommandError::Stored("a conversation's type"))?;
    let members = match r#type {
        ConversationType::Channel => None,
        ConversationType::Direct | ConversationType::Group => {
            let named = row.member_ids.unwrap_or_default().into_iter();
            let mut shown = named
                .zip(row.member_roles.unwrap_or_default())
                .map(member)
                .collect::<Result<Vec<_>, _>>()?;
            if r#type == ConversationType::Direct {
                shown.retain(|member| member.user_id != *user);
            }
            Some(shown)
        }
    };
    Ok(Conversation {
        id: ConversationId(row.id),
        r#type,
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
        unread_count: row.unread.map(i64::cast_unsigned),
        last_message: None,
        members,
        member_count: Some(u64::try_from(row.members).unwrap_or_default()),
    })
}

fn member((user_id, own_role): (String, String)) -> Result<MemberPreview, CommandError> {
    Ok(MemberPreview {
        user_id: user_id
            .try_into()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        role: role(&own_role)?,
    })
}

/// One conversation.
pub(super) fn statement() -> String {
    format!(
        "select {} from conversations c left join lateral (select p.* from participants p \
            where p.conversation_id = c.id and p.user_id = $2 and p.left_seq is null limit 1) p on true \
            {} where c.id = $1",
        columns(),
        members_shown()
    )
}

/// One conversation with its first participants.
pub(super) async fn get(
    connection: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
) -> Result<Answer, CommandError> {
    may_read(connection, caller, id).await?;
    let row: ConversationRow = sqlx::query_as(sqlx::AssertSqlSafe(statement()))
        .bind(id.0)
        .bind(caller.user.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let members = usize::try_from(row.members).unwrap_or_default();
    let rows: Vec<(ParticipantRow, i64, i32)> = participants(connection, id).await?;
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
        conversation: conversation(row, &caller.user)?,
        participants: shown,
        participants_next_cursor: cursor,
    };
    Ok(Answer::Object(JsonText::of(&body)?))
}

async fn participants(
    tx: &mut PgConnection,
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
         where conversation_id = $1 and left_seq is null and position >= 0 order by joined_seq, position limit $2",
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
