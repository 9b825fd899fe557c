//! Changing a conversation's metadata, and deleting it.

use confab_protocol::command::{Caller, DeleteConversation, Outcome, UpdateConversation};
use confab_protocol::event::{ConversationDeleted, ConversationUpdated, EventType};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Conversation, Role};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::append::{Appender, role};
use super::lock::{first_execution, lock, read, settle};
use super::transact::Done;
use crate::conversations::{self, Described};
use crate::error::CommandError;
use crate::reads::unread;

/// Merges a patch into the metadata.
pub(super) async fn update(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &UpdateConversation,
) -> Result<Done, CommandError> {
    let (id, key) = (command.conversation, command.client_id);
    lock(tx, caller, id).await?;
    let expected = EventType::ConversationUpdated;
    if let Some(first) = first_execution(tx, caller, id, key, expected).await? {
        let ConversationUpdated { metadata, version } = serde_json::from_str(&first.payload)?;
        let described = Described { metadata, version };
        let outcome = updated(tx, caller, id, described, (first.seq(), first.at())).await?;
        return Ok((outcome, None));
    }
    let locked = read(tx, caller, id).await?;
    let before = describe(tx, id).await?;
    let append = conversations::update(caller, &locked, command, &before)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let described = describe(tx, id).await?;
    let event = (locked.last_seq + 1, locked.now);
    let outcome = updated(tx, caller, id, described, event).await?;
    Ok((outcome, Some(committed)))
}

/// Deletes the conversation. A repeat is told the same by whatever key, and appends nothing.
pub(super) async fn delete(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &DeleteConversation,
) -> Result<Done, CommandError> {
    let (id, key) = (command.conversation, command.client_id);
    lock(tx, caller, id).await?;
    let expected = EventType::ConversationDeleted;
    if let Some(first) = first_execution(tx, caller, id, key, expected).await? {
        let ConversationDeleted { deleted_at } = serde_json::from_str(&first.payload)?;
        return Ok((Outcome::Deleted { deleted_at }, None));
    }
    let locked = read(tx, caller, id).await?;
    if let Some(deleted_at) = locked.deleted_at
        && (caller.admin || locked.was_member)
    {
        // Nothing is behind the event that deleted it.
        settle(tx, caller, id, key, locked.last_seq).await?;
        return Ok((Outcome::Deleted { deleted_at }, None));
    }
    let append = conversations::delete(caller, &locked)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let deleted_at = locked.now;
    Ok((Outcome::Deleted { deleted_at }, Some(committed)))
}

async fn describe(tx: &mut PgConnection, id: ConversationId) -> Result<Described, CommandError> {
    let (metadata, version): (String, i64) =
        sqlx::query_as("select metadata, version from conversations where id = $1")
            .bind(id.0)
            .fetch_one(tx)
            .await?;
    Ok(Described {
        metadata: JsonText::trusted(metadata),
        version: version.cast_unsigned(),
    })
}

/// A conversation as it was right behind the event `$3`, with what it was to the caller: of what may have changed since, only how far
/// the caller has read.
fn behind() -> String {
    format!(
        "select c.type, c.created_by, c.created_at, p.role, p.joined_at, p.last_read_seq, {} as unread \
        from conversations c left join lateral ( \
            select p.role, p.joined_at, p.last_read_seq from participants p where p.conversation_id = c.id and p.user_id = $2 \
                and p.joined_seq < $3 and (p.left_seq is null or p.left_seq > $3) limit 1) p on true \
        where c.id = $1",
        unread(
            "$3",
            "(select e.messages from events e where e.conversation_id = c.id and e.seq <= $3 \
                and e.messages is not null order by e.seq desc limit 1)"
        )
    )
}

#[derive(sqlx::FromRow)]
struct Behind {
    #[sqlx(rename = "type")]
    conversation_type: String,
    created_by: String,
    created_at: OffsetDateTime,
    role: Option<String>,
    joined_at: Option<OffsetDateTime>,
    last_read_seq: Option<i64>,
    unread: i64,
}

/// The answer to a change of metadata: the conversation behind `event`, also when the event was found.
async fn updated(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
    described: Described,
    (seq, at): (Seq, Timestamp),
) -> Result<Outcome, CommandError> {
    let row: Behind = sqlx::query_as(sqlx::AssertSqlSafe(behind()))
        .bind(id.0)
        .bind(caller.user.as_str())
        .bind(seq.cast_signed())
        .fetch_one(tx)
        .await?;
    let own_role = row.role.as_deref().map(role).transpose()?;
    let conversation = Conversation {
        id,
        r#type: row
            .conversation_type
            .parse()
            .map_err(|_unknown| CommandError::Stored("a conversation's type"))?,
        metadata: described.metadata,
        version: described.version,
        created_by: row
            .created_by
            .parse()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        created_at: Timestamp::new(row.created_at),
        updated_at: at,
        deleted_at: None,
        last_seq: seq,
        last_event_at: at,
        // Without the scope it was an admin, whatever it became since.
        role: own_role.map(|now| if caller.admin { now } else { Role::Admin }),
        joined_at: row.joined_at.map(Timestamp::new),
        last_read_seq: row.last_read_seq.map(i64::cast_unsigned),
        unread_count: row.role.map(|_| row.unread.cast_unsigned()),
        last_message: None,
    };
    Ok(Outcome::Updated {
        conversation: JsonText::of(&conversation)?,
    })
}
