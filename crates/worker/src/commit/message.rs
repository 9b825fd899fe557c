//! Editing and deleting a message.

use confab_protocol::command::{Caller, DeleteMessage, EditMessage, Outcome, SendAnswer, Sent};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::EventType;
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::Appender;
use super::lock::{first_execution, lock, read, settle};
use super::transact::Done;
use crate::decision::{Append, Locked, StoredMessage};
use crate::error::CommandError;
use crate::messages;
use crate::repeats::has_content;

/// Whether a message was changed behind an event: $1 conversation, $2 message, $3 event. The fence (`offset 0`) keeps the log behind the event
/// from being read for it.
pub(super) const IS_CHANGED: &str = "\
    select exists (select from ( \
        select seq from events where conversation_id = $1 and target_seq = $2 offset 0) as changes \
        where seq > $3)";

/// What an edit and a deletion have in common.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    caller: &'a Caller,
    message: EventId,
    client_id: ClientId,
    answer: SendAnswer,
    /// What it appends.
    event_type: EventType,
    /// Of an edit, the content that the message gets.
    content: Option<&'a JsonText>,
}

/// Replaces a message's content.
pub(super) async fn edit(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &EditMessage,
) -> Result<Done, CommandError> {
    let change = Change {
        caller,
        message: command.message,
        client_id: command.client_id,
        answer: command.answer,
        event_type: EventType::MessageEdited,
        content: Some(&command.content),
    };
    let decide = |locked: &Locked, message| {
        messages::edit(caller, locked, message, &command.content).map(Some)
    };
    change.carry_out(tx, command.conversation, decide).await
}

/// Deletes a message.
pub(super) async fn delete(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &DeleteMessage,
) -> Result<Done, CommandError> {
    let change = Change {
        caller,
        message: command.message,
        client_id: command.client_id,
        answer: command.answer,
        event_type: EventType::MessageDeleted,
        content: None,
    };
    let decide = |locked: &Locked, message| messages::delete(caller, locked, message);
    change.carry_out(tx, command.conversation, decide).await
}

impl Change<'_> {
    /// Where no conversation is named, one that the caller may not see is told as a message that is not there.
    async fn carry_out(
        &self,
        tx: &mut PgConnection,
        named: Option<ConversationId>,
        decide: impl FnOnce(&Locked, Option<StoredMessage>) -> Result<Option<Append>, CommandError>,
    ) -> Result<Done, CommandError> {
        if let Some(id) = named {
            return self.carry_out_in(tx, id, decide).await;
        }
        let found: Option<(Uuid,)> = sqlx::query_as(
            "select conversation_id from events where id = $1 and type = 'message.created'",
        )
        .bind(self.message.0)
        .fetch_optional(&mut *tx)
        .await?;
        let not_found = || CommandError::from(Failure::of(Code::MessageNotFound));
        let (id,) = found.ok_or_else(not_found)?;
        self.carry_out_in(tx, ConversationId(id), decide)
            .await
            .map_err(|error| match error {
                CommandError::Refused(failure) if failure.code == Code::ConversationNotFound => {
                    not_found()
                }
                error => error,
            })
    }

    async fn carry_out_in(
        &self,
        tx: &mut PgConnection,
        id: ConversationId,
        decide: impl FnOnce(&Locked, Option<StoredMessage>) -> Result<Option<Append>, CommandError>,
    ) -> Result<Done, CommandError> {
        lock(tx, self.caller, id).await?;
        let first = first_execution(tx, self.caller, id, self.client_id, self.event_type).await?;
        let message = stored(tx, id, self.message).await?;
        if let Some(first) = first {
            let message = message
                .filter(|message| first.target() == Some(message.seq))
                .ok_or_else(|| Failure::of(Code::IdempotencyKeyReused))?;
            self.compare(tx, id, &message, first.seq()).await?;
            let sent = Sent {
                duplicate: first.is_settled,
                ..self.sent(id, &message, first.seq(), first.at())
            };
            return Ok((Outcome::Sent(sent), None));
        }
        let locked = read(tx, self.caller, id).await?;
        let before = message.clone();
        let Some(append) = decide(&locked, message)? else {
            let message = before.ok_or(CommandError::Stored("a deletion of nothing"))?;
            let (seq, at) = deletion(tx, id, message.seq).await?;
            settle(tx, self.caller, id, self.client_id, seq).await?;
            let sent = Sent {
                duplicate: true,
                ..self.sent(id, &message, seq, at)
            };
            return Ok((Outcome::Sent(sent), None));
        };
        let appender = Appender {
            caller: self.caller,
            conversation: id,
            client_id: self.client_id,
            locked: &locked,
        };
        let committed = appender.write(tx, &append).await?;
        let message = append.events.into_iter().find_map(|event| event.rewrites);
        let message = message.ok_or(CommandError::Stored("a change of no message"))?;
        let sent = self.sent(id, &message, locked.last_seq + 1, locked.now);
        Ok((Outcome::Sent(sent), Some(committed)))
    }

    /// Refuses another content under the key of the edit `seq`, for as long as the message stands as that left it.
    async fn compare(
        &self,
        tx: &mut PgConnection,
        conversation: ConversationId,
        message: &StoredMessage,
        seq: Seq,
    ) -> Result<(), CommandError> {
        let Some(content) = self.content else {
            return Ok(());
        };
        if has_content(&message.payload, content.as_str()) {
            return Ok(());
        }
        let (is_changed,): (bool,) = sqlx::query_as(IS_CHANGED)
            .bind(conversation.0)
            .bind(message.seq.cast_signed())
            .bind(seq.cast_signed())
            .fetch_one(tx)
            .await?;
        if is_changed {
            Ok(())
        } else {
            Err(Failure::of(Code::IdempotencyKeyReused).into())
        }
    }

    /// What is told of the event `seq`. No duplicate where an earlier execution appended it: its key is the gateway's own.
    fn sent(
        &self,
        conversation: ConversationId,
        message: &StoredMessage,
        seq: Seq,
        created_at: Timestamp,
    ) -> Sent {
        let encode = || JsonText::trusted(message.entry(conversation).encode_message());
        Sent {
            message_id: message.id,
            conversation,
            seq,
            created_at,
            duplicate: false,
            message: (self.answer == SendAnswer::Message).then(encode),
        }
    }
}

/// The message as it stands in this conversation; none where it stands in another, or nowhere.
async fn stored(
    tx: &mut PgConnection,
    conversation: ConversationId,
    id: EventId,
) -> Result<Option<StoredMessage>, CommandError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        conversation_id: Uuid,
        seq: i64,
        actor: String,
        client_id: Option<Uuid>,
        created_at: OffsetDateTime,
        edited_at: Option<OffsetDateTime>,
        deleted_at: Option<OffsetDateTime>,
        payload: String,
    }
    // By its id alone, so that it is one look-up however little Postgres knows of the table.
    let row: Option<Row> = sqlx::query_as(
        "select conversation_id, seq, actor, client_id, created_at, edited_at, deleted_at, payload from events \
         where id = $1 and type = 'message.created'",
    )
    .bind(id.0)
    .fetch_optional(tx)
    .await?;
    let Some(row) = row.filter(|row| row.conversation_id == conversation.0) else {
        return Ok(None);
    };
    Ok(Some(StoredMessage {
        seq: row.seq.cast_unsigned(),
        id,
        sender: row
            .actor
            .try_into()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        client_id: row.client_id.map(ClientId),
        created_at: Timestamp::new(row.created_at),
        edited_at: row.edited_at.map(Timestamp::new),
        deleted_at: row.deleted_at.map(Timestamp::new),
        payload: row.payload,
    }))
}

/// The event that deleted a message.
async fn deletion(
    tx: &mut PgConnection,
    conversation: ConversationId,
    target: Seq,
) -> Result<(Seq, Timestamp), CommandError> {
    let (seq, at): (i64, OffsetDateTime) = sqlx::query_as(
        "select seq, created_at from events \
         where conversation_id = $1 and target_seq = $2 and type = 'message.deleted'",
    )
    .bind(conversation.0)
    .bind(target.cast_signed())
    .fetch_one(tx)
    .await?;
    Ok((seq.cast_unsigned(), Timestamp::new(at)))
}
