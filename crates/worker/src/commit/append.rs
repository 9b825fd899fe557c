//! Carrying out an [`Append`]: events, projections and the outbox row, in the caller's transaction and under its lock.

use confab_protocol::command::Caller;
use confab_protocol::event::{EventType, LogEntry};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::resource::Role;
use sqlx::PgConnection;
use uuid::Uuid;

use super::keys;
use crate::decision::{Append, Change, Locked};
use crate::error::CommandError;
use crate::outbox::{Committed, outgoing};

/// Where and by whom is appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appender<'a> {
    pub(super) caller: &'a Caller,
    pub(super) conversation: ConversationId,
    pub(super) client_id: ClientId,
    /// The id of the first event, where the gateway made one.
    pub(super) event: Option<EventId>,
    pub(super) locked: &'a Locked,
}

impl Appender<'_> {
    /// Writes events and changes; gives what is to be published once the transaction has committed.
    pub(super) async fn write(
        &self,
        tx: &mut PgConnection,
        append: &Append,
    ) -> Result<Committed, CommandError> {
        let first = self.locked.last_seq + 1;
        let last = self.locked.last_seq + append.events.len() as Seq;
        if append.changes.contains(&Change::Delete) {
            keys::forget(tx, self.conversation).await?;
        }
        for change in &append.changes {
            self.change(tx, change, first, last).await?;
        }
        let mut events = Vec::new();
        for (n, event) in append.events.iter().enumerate() {
            if let Some(message) = &event.rewrites {
                self.rewrite(tx, message).await?;
            }
            let entry = LogEntry {
                conversation: self.conversation,
                seq: first + n as Seq,
                id: self
                    .event
                    .filter(|_| n == 0)
                    .unwrap_or_else(|| EventId(Uuid::now_v7())),
                event_type: event.event_type,
                actor: &self.caller.user,
                // The key stands with the first event: that is the one a repeat finds.
                client_id: (n == 0).then_some(self.client_id),
                created_at: self.locked.now,
                edited_at: None,
                deleted_at: None,
                version: 1,
                payload: &event.payload,
                target_seq: event.rewrites.as_ref().map(|message| message.seq),
                target: event
                    .rewrites
                    .as_ref()
                    .filter(|_| event.event_type == EventType::MessageEdited)
                    .map(|message| Box::new(message.entry(self.conversation))),
            };
            insert_event(tx, &entry).await?;
            events.push(outgoing(&self.caller.tenant, &entry));
        }
        self.advance(tx, last).await?;
        let row = insert_outbox(tx, self.conversation, first, last).await?;
        Ok(Committed { row, events })
    }

    /// Moves the conversation's head. No message is appended: its place in lists stays.
    async fn advance(&self, tx: &mut PgConnection, last: Seq) -> Result<(), CommandError> {
        sqlx::query("update conversations set last_seq = $2, last_event_at = $3 where id = $1")
            .bind(self.conversation.0)
            .bind(last.cast_signed())
            .bind(self.locked.now.to_datetime())
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Appends one event that is no message: those before it count on.
pub(super) async fn insert_event(
    tx: &mut PgConnection,
    entry: &LogEntry<'_>,
) -> Result<(), CommandError> {
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, client_id, created_at, payload, target_seq, messages) \
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, c.messages from conversations c where c.id = $1",
    )
    .bind(entry.conversation.0)
    .bind(entry.seq.cast_signed())
    .bind(entry.id.0)
    .bind(entry.event_type.as_str())
    .bind(entry.actor.as_str())
    .bind(entry.client_id.map(|id| id.0))
    .bind(entry.created_at.to_datetime())
    .bind(entry.payload)
    .bind(entry.target_seq.map(Seq::cast_signed))
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the events from `first` to `last` are to be published: from now on by the clock, which the log may be ahead of.
pub(super) async fn insert_outbox(
    tx: &mut PgConnection,
    conversation: ConversationId,
    first: Seq,
    last: Seq,
) -> Result<i64, CommandError> {
    let seqs: Vec<i64> = (first..=last).map(u64::cast_signed).collect();
    let (id,): (i64,) = sqlx::query_as(
        "insert into outbox (created_at, conversation_ids, seqs) values (clock_timestamp(), $1, $2) returning id",
    )
    .bind(vec![conversation.0; seqs.len()])
    .bind(seqs)
    .fetch_one(tx)
    .await?;
    Ok(id)
}

/// A role as it is stored.
pub(crate) fn role(name: &str) -> Result<Role, CommandError> {
    name.parse()
        .map_err(|_unknown| CommandError::Stored("a role"))
}
