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
use super::lock::{FirstExecution, first_execution, lock, read, reused, settle};
use super::transact::{Asker, Done};
use crate::conversations::{self, Described, has_patched};
use crate::decision::visible;
use crate::error::CommandError;
use crate::reads::unread;

/// Merges a patch into the metadata.
pub(super) async fn update(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &UpdateConversation,
) -> Result<Done, CommandError> {
    let (caller, id, key) = (asker.caller, command.conversation, command.client_id);
    lock(tx, caller, id).await?;
    let expected = EventType::ConversationUpdated;
    if let Some(first) = first_execution(tx, caller, id, key, expected).await? {
        let told = if first.is_settled {
            unchanged_before(tx, caller, command, &first).await?
        } else {
            changed_before(asker, command, &first)?
        };
        return Ok((updated(tx, caller, id, told).await?, None));
    }
    let locked = read(tx, caller, id).await?;
    let present = describe(tx, id).await?;
    let append = conversations::update(caller, &locked, command, &present.described)?;
    let Some(append) = append else {
        let found = version_detail(present.described.version);
        settle(tx, caller, id, key, (locked.last_seq, Some(&found))).await?;
        return Ok((updated(tx, caller, id, present).await?, None));
    };
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: asker.event,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let told = Told {
        role: Some(Role::Admin),
        ..describe(tx, id).await?
    };
    Ok((updated(tx, caller, id, told).await?, Some(committed)))
}

/// What a repeat of a change is told: the conversation right behind it. Another patch under its key is refused: one that would change what
/// the first one has left.
fn changed_before(
    asker: Asker<'_>,
    command: &UpdateConversation,
    first: &FirstExecution,
) -> Result<Told, CommandError> {
    let ConversationUpdated { metadata, version } = serde_json::from_str(&first.payload)?;
    if !has_patched(&metadata, &command.patch)? {
        return Err(reused());
    }
    Ok(Told {
        described: Described { metadata, version },
        seq: first.seq(),
        updated_at: first.at(),
        last_event_at: first.at(),
        // It was one then, whatever it became since.
        role: Some(Role::Admin),
        replayed: first.is_repeated_by(&asker),
    })
}

/// What a repeat of a change of nothing is told: the conversation as it stands, for those who may still see it. Another patch under its key
/// is refused for as long as the metadata are those that the first one found.
async fn unchanged_before(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &UpdateConversation,
    first: &FirstExecution,
) -> Result<Told, CommandError> {
    let id = command.conversation;
    let locked = read(tx, caller, id).await?;
    visible(caller, &locked)?;
    let present = describe(tx, id).await?;
    let found = first.detail.as_deref().unwrap_or_default();
    let is_of_another = !found.starts_with(VERSION)
        || found == version_detail(present.described.version)
            && !has_patched(&present.described.metadata, &command.patch)?;
    if is_of_another {
        return Err(reused());
    }
    Ok(Told {
        replayed: true,
        ..present
    })
}

/// What begins the detail of a settled change of metadata.
const VERSION: &str = "version ";

/// The detail of a settled change of metadata that found this version.
fn version_detail(version: u64) -> String {
    format!("{VERSION}{version}")
}

/// Deletes the conversation. A repeat is told the same by whatever key, and appends nothing.
pub(super) async fn delete(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &DeleteConversation,
) -> Result<Done, CommandError> {
    let (caller, id, key) = (asker.caller, command.conversation, command.client_id);
    lock(tx, caller, id).await?;
    let expected = EventType::ConversationDeleted;
    if let Some(first) = first_execution(tx, caller, id, key, expected).await? {
        let ConversationDeleted { deleted_at } = serde_json::from_str(&first.payload)?;
        let replayed = first.is_repeated_by(&asker);
        let outcome = Outcome::Deleted {
            deleted_at,
            replayed,
        };
        return Ok((outcome, None));
    }
    let locked = read(tx, caller, id).await?;
    if let Some(deleted_at) = locked.deleted_at
        && (caller.admin || locked.was_member)
    {
        // Nothing is behind the event that deleted it.
        settle(tx, caller, id, key, (locked.last_seq, None)).await?;
        return Ok((deleted(deleted_at), None));
    }
    let append = conversations::delete(caller, &locked)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: asker.event,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    Ok((deleted(locked.now), Some(committed)))
}

fn deleted(deleted_at: Timestamp) -> Outcome {
    Outcome::Deleted {
        deleted_at,
        replayed: false,
    }
}

/// What is told of a conversation beside what never changes and what it is to the caller.
#[derive(Debug)]
struct Told {
    described: Described,
    /// The last event, of which it is told as it was right behind it.
    seq: Seq,
    updated_at: Timestamp,
    last_event_at: Timestamp,
    /// What a member had by way of a role then; none where it is the present one.
    role: Option<Role>,
    replayed: bool,
}

/// The conversation as it stands.
async fn describe(tx: &mut PgConnection, id: ConversationId) -> Result<Told, CommandError> {
    let (metadata, version, seq, updated_at, last_event_at): (
        String,
        i64,
        i64,
        OffsetDateTime,
        OffsetDateTime,
    ) = sqlx::query_as(
        "select metadata, version, last_seq, updated_at, last_event_at from conversations where id = $1",
    )
    .bind(id.0)
    .fetch_one(tx)
    .await?;
    let described = Described {
        metadata: JsonText::trusted(metadata),
        version: version.cast_unsigned(),
    };
    Ok(Told {
        described,
        seq: seq.cast_unsigned(),
        updated_at: Timestamp::new(updated_at),
        last_event_at: Timestamp::new(last_event_at),
        role: None,
        replayed: false,
    })
}

/// A conversation as it was right behind the event `$3`, with what it was to the caller: of what may have changed since, only how far
/// the caller has read.
fn behind() -> String {
    format!(
        "select c.type, c.created_by, c.created_at, p.role, p.joined_at, p.last_read_seq, {} as unread \
        from conversations c left join lateral ( \
            select p.role, p.joined_at, p.last_read_seq from participants p where p.conversation_id = c.id and p.user_id = $2 \
                and p.joined_seq <= $3 and (p.left_seq is null or p.left_seq > $3) limit 1) p on true \
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

/// The answer to a change of metadata.
async fn updated(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
    told: Told,
) -> Result<Outcome, CommandError> {
    let row: Behind = sqlx::query_as(sqlx::AssertSqlSafe(behind()))
        .bind(id.0)
        .bind(caller.user.as_str())
        .bind(told.seq.cast_signed())
        .fetch_one(tx)
        .await?;
    let own_role = row.role.as_deref().map(role).transpose()?;
    let conversation = Conversation {
        id,
        r#type: row
            .conversation_type
            .parse()
            .map_err(|_unknown| CommandError::Stored("a conversation's type"))?,
        metadata: told.described.metadata,
        version: told.described.version,
        created_by: row
            .created_by
            .parse()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        created_at: Timestamp::new(row.created_at),
        updated_at: told.updated_at,
        deleted_at: None,
        last_seq: told.seq,
        last_event_at: told.last_event_at,
        // Of the scope it is not known that it was one.
        role: own_role.map(|now| told.role.filter(|_| !caller.admin).unwrap_or(now)),
        joined_at: row.joined_at.map(Timestamp::new),
        last_read_seq: row.last_read_seq.map(i64::cast_unsigned),
        unread_count: row.role.map(|_| row.unread.cast_unsigned()),
        last_message: None,
        members: None,
        member_count: None,
    };
    Ok(Outcome::Updated {
        conversation: JsonText::of(&conversation)?,
        replayed: told.replayed,
    })
}
