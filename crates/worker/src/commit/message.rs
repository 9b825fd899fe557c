//! Editing and deleting a message.

use confab_protocol::command::{DeleteMessage, EditMessage, Outcome, SendAnswer, Sent};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::EventType;
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::Appender;
use super::lock::{first_execution, lock, read, reused, settle};
use super::transact::{Asker, Done};
use crate::decision::{Append, Locked, StoredMessage};
use crate::error::CommandError;
use crate::messages::{self, Edit};
use crate::reads::version;
use crate::repeats::is_same_body;

/// Whether a message was changed behind an event: $1 conversation, $2 message, $3 event. The fence (`offset 0`) keeps the log behind the event
/// from being read for it.
pub(super) const IS_CHANGED: &str = "\
    select exists (select from ( \
        select seq from events where conversation_id = $1 and target_seq = $2 offset 0) as changes \
        where seq > $3)";

/// What an edit and a deletion have in common.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    asker: Asker<'a>,
    message: EventId,
    client_id: ClientId,
    answer: SendAnswer,
    /// What it appends.
    event_type: EventType,
    /// Of an edit, what becomes of the message.
    edit: Option<Edit<'a>>,
}

/// Changes a message's content, its metadata, or both.
pub(super) async fn edit(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &EditMessage,
) -> Result<Done, CommandError> {
    let edit = Edit {
        content: command.content.as_ref(),
        metadata: command.metadata.as_ref(),
    };
    let change = Change {
        asker,
        message: command.message,
        client_id: command.client_id,
        answer: command.answer,
        event_type: EventType::MessageEdited,
        edit: Some(edit),
    };
    let decide = |locked: &Locked, message| {
        messages::edit(
            asker.caller,
            locked,
            message,
            edit,
            command.expected_version,
        )
    };
    change.carry_out(tx, command.conversation, decide).await
}

/// Deletes a message.
pub(super) async fn delete(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &DeleteMessage,
) -> Result<Done, CommandError> {
    let change = Change {
        asker,
        message: command.message,
        client_id: command.client_id,
        answer: command.answer,
        event_type: EventType::MessageDeleted,
        edit: None,
    };
    let decide = |locked: &Locked, message| {
        messages::delete(asker.caller, locked, message, command.expected_version)
    };
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
        let caller = self.asker.caller;
        lock(tx, caller, id).await?;
        let first = first_execution(tx, caller, id, self.client_id, self.event_type).await?;
        let message = stored(tx, id, self.message).await?;
        if let Some(first) = first {
            let message = message
                .filter(|message| first.target() == Some(message.seq))
                .ok_or_else(reused)?;
            self.compare(tx, id, &message, first.seq()).await?;
            let sent = Sent {
                duplicate: first.is_repeated_by(&self.asker),
                ..self.sent(id, &message, first.seq(), first.at())
            };
            return Ok((Outcome::Sent(sent), None));
        }
        let locked = read(tx, caller, id).await?;
        let before = message.clone();
        let Some(append) = decide(&locked, message)? else {
            let message = before.ok_or(CommandError::Stored("a change of nothing"))?;
            let (seq, at) = last_change(tx, id, &message).await?;
            settle(tx, caller, id, self.client_id, (seq, None)).await?;
            let sent = self.sent(id, &message, seq, at);
            return Ok((Outcome::Sent(sent), None));
        };
        let appender = Appender {
            caller,
            conversation: id,
            client_id: self.client_id,
            event: self.asker.event,
            locked: &locked,
        };
        let committed = appender.write(tx, &append).await?;
        let message = append.events.into_iter().find_map(|event| event.rewrites);
        let message = message.ok_or(CommandError::Stored("a change of no message"))?;
        let sent = self.sent(id, &message, locked.last_seq + 1, locked.now);
        Ok((Outcome::Sent(sent), Some(committed)))
    }

    /// Refuses another change under the key of the edit `seq`, for as long as the message stands as that left it.
    async fn compare(
        &self,
        tx: &mut PgConnection,
        conversation: ConversationId,
        message: &StoredMessage,
        seq: Seq,
    ) -> Result<(), CommandError> {
        let Some(edit) = self.edit else {
            return Ok(());
        };
        // To carry it out again would change nothing.
        if is_same_body(&message.payload, &edit.apply(&message.payload)?) {
            return Ok(());
        }
        let (is_changed,): (bool,) = sqlx::query_as(IS_CHANGED)
            .bind(conversation.0)
            .bind(message.seq.cast_signed())
            .bind(seq.cast_signed())
            .fetch_one(tx)
            .await?;
        if is_changed { Ok(()) } else { Err(reused()) }
    }

    /// What is told of the event `seq`.
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
        version: Option<i32>,
        payload: String,
    }
    // By its id alone, so that it is one look-up however little Postgres knows of the table.
    let row: Option<Row> = sqlx::query_as(
        "select conversation_id, seq, actor, client_id, created_at, edited_at, deleted_at, version, payload from events \
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
        version: version(row.version),
        payload: row.payload,
    }))
}

/// The event that left a message as it is: its last edit or its deletion, else the one that sent it. The fence (`offset 0`) keeps the log
/// behind the message from being read for it.
async fn last_change(
    tx: &mut PgConnection,
    conversation: ConversationId,
    message: &StoredMessage,
) -> Result<(Seq, Timestamp), CommandError> {
    let last: Option<(i64, OffsetDateTime)> = sqlx::query_as(
        "select seq, created_at from ( \
            select seq, created_at from events where conversation_id = $1 and target_seq = $2 offset 0) as changes \
         order by seq desc limit 1",
    )
    .bind(conversation.0)
    .bind(message.seq.cast_signed())
    .fetch_optional(tx)
    .await?;
    let sent = (message.seq, message.created_at);
    Ok(last.map_or(sent, |(seq, at)| (seq.cast_unsigned(), Timestamp::new(at))))
}
