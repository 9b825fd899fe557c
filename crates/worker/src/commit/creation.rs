//! Creations: once for a key, for 24 hours.

use confab_protocol::command::{Caller, CreateConversation, Created};
use confab_protocol::error::{Code, Extension, Failure};
use confab_protocol::event::{ConversationCreated, EventType, LogEntry};
use confab_protocol::ids::{ClientId, ConversationId, EventId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::resource::{Conversation, Participant};
use confab_protocol::timestamp::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::{Appender, insert_event, insert_outbox};
use super::changes::lock_counts;
use super::keys::{self, FirstUse};
use crate::conversations::{Beginning, begin, membership_limit};
use crate::decision::{Locked, fits};
use crate::error::CommandError;
use crate::outbox::{Committed, outgoing};
use crate::participants::within_limits;
use crate::reads::participants_cursor;

/// Creates a conversation, or gives what the key's first use gave: a refusal that was decided here is kept like a success.
pub(super) async fn create(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
) -> Result<(Result<Created, Failure>, Option<Committed>), CommandError> {
    if let Some(first) = keys::take(tx, caller, command).await? {
        return Ok((repeated(tx, caller, command, first).await?, None));
    }
    let decided = decide(tx, caller, command).await;
    let (outcome, committed) = match decided {
        Ok(beginning) => {
            let (created, committed) = write(tx, caller, command, &beginning).await?;
            (Ok(created), Some(committed))
        }
        Err(CommandError::Refused(failure)) => (Err(failure), None),
        Err(error) => return Err(error),
    };
    keys::keep(tx, caller, command, &outcome).await?;
    Ok((outcome, committed))
}

/// What the key's first use is answered with: made of the event that the conversation began with, so that nothing of it is kept twice.
async fn repeated(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
    first: FirstUse,
) -> Result<Result<Created, Failure>, CommandError> {
    let id = match first {
        FirstUse::Created(id) => id,
        FirstUse::Refused(failure) => {
            return Ok(Err(Failure {
                replayed: true,
                ..failure
            }));
        }
    };
    let (payload,): (String,) =
        sqlx::query_as("select payload from events where conversation_id = $1 and seq = 1")
            .bind(id.0)
            .fetch_one(tx)
            .await?;
    let data: ConversationCreated = serde_json::from_str(&payload)?;
    Ok(Ok(Created {
        conversation: id,
        body: JsonText::of(&body(caller, data))?,
        replayed: id != command.conversation,
    }))
}

async fn decide(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
) -> Result<Beginning, CommandError> {
    let beginning = begin(caller, command)?;
    let counts = lock_counts(tx, caller, &beginning.members).await?;
    within_limits(&counts, |user| membership_limit(caller, user))?;
    // Last of all: what was taken here must not stay behind a refusal, which is committed with its key.
    if let Some((low, high)) = &beginning.pair
        && let Some(id) = existing_pair(tx, caller, low, high).await?
    {
        let extension = Extension {
            conversation_id: Some(id),
            ..Extension::default()
        };
        return Err(Failure::of(Code::DirectConversationExists)
            .with(extension)
            .into());
    }
    Ok(beginning)
}

/// Takes the pair, or finds whose it is, in one statement: its conversation may be deleted at any moment. The conversation's
/// id is entered with the conversation.
async fn existing_pair(
    tx: &mut PgConnection,
    caller: &Caller,
    low: &UserId,
    high: &UserId,
) -> Result<Option<ConversationId>, CommandError> {
    let taken = Uuid::nil();
    let (id,): (Uuid,) = sqlx::query_as(
        "insert into direct_pairs (tenant, user_a, user_b, conversation_id) values ($1, $2, $3, $4) \
         on conflict (tenant, user_a, user_b) do update set conversation_id = direct_pairs.conversation_id \
         returning conversation_id",
    )
    .bind(caller.tenant.as_str())
    .bind(low.as_str())
    .bind(high.as_str())
    .bind(taken)
    .fetch_one(tx)
    .await?;
    Ok((id != taken).then_some(ConversationId(id)))
}

async fn enter_pair(
    tx: &mut PgConnection,
    caller: &Caller,
    (low, high): &(UserId, UserId),
    id: ConversationId,
) -> Result<(), CommandError> {
    sqlx::query("update direct_pairs set conversation_id = $4 where tenant = $1 and user_a = $2 and user_b = $3")
        .bind(caller.tenant.as_str())
        .bind(low.as_str())
        .bind(high.as_str())
        .bind(id.0)
        .execute(tx)
        .await?;
    Ok(())
}

async fn write(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
    beginning: &Beginning,
) -> Result<(Created, Committed), CommandError> {
    let (now,): (OffsetDateTime,) =
        sqlx::query_as("select date_trunc('milliseconds', clock_timestamp())")
            .fetch_one(&mut *tx)
            .await?;
    let now = Timestamp::new(now);
    let id = command.conversation;
    sqlx::query(
        "insert into conversations \
            (id, tenant, type, metadata, created_by, created_at, updated_at, last_seq, last_event_at, last_message_at, \
                active_at, members) \
         values ($1, $2, $3, $4, $5, $6, $6, 1, $6, $6, $6, 0)",
    )
    .bind(id.0)
    .bind(caller.tenant.as_str())
    .bind(command.r#type.as_str())
    .bind(command.metadata.as_str())
    .bind(caller.user.as_str())
    .bind(now.to_datetime())
    .execute(&mut *tx)
    .await?;
    let locked = Locked {
        r#type: command.r#type,
        last_seq: 0,
        members: 0,
        deleted_at: None,
        role: None,
        was_member: false,
        now,
    };
    let key = ClientId(Uuid::now_v7());
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: None,
        locked: &locked,
    };
    appender.join(tx, &beginning.members, 1).await?;
    if let Some(pair) = &beginning.pair {
        enter_pair(tx, caller, pair, id).await?;
    }
    let data = ConversationCreated {
        conversation: conversation(caller, command, id, now),
        participants: beginning.members.clone(),
    };
    let payload = serde_json::to_string(&data)?;
    fits(&payload)?;
    let entry = LogEntry {
        conversation: id,
        seq: 1,
        id: EventId(Uuid::now_v7()),
        event_type: EventType::ConversationCreated,
        actor: &caller.user,
        client_id: Some(key),
        created_at: now,
        edited_at: None,
        deleted_at: None,
        version: 1,
        payload: &payload,
        target_seq: None,
        target: None,
    };
    insert_event(tx, &entry).await?;
    let row = insert_outbox(tx, id, 1, 1).await?;
    let committed = Committed {
        row,
        events: vec![outgoing(&caller.tenant, &entry)],
    };
    let body = JsonText::of(&body(caller, data))?;
    Ok((
        Created {
            conversation: id,
            body,
            replayed: false,
        },
        committed,
    ))
}

fn conversation(
    caller: &Caller,
    command: &CreateConversation,
    id: ConversationId,
    now: Timestamp,
) -> Conversation {
    Conversation {
        id,
        r#type: command.r#type,
        metadata: command.metadata.clone(),
        version: 1,
        created_by: caller.user.clone(),
        created_at: now,
        updated_at: now,
        deleted_at: None,
        last_seq: 1,
        last_event_at: now,
        role: None,
        joined_at: None,
        last_read_seq: None,
        unread_count: None,
        last_message: None,
        members: None,
        member_count: None,
    }
}

/// A conversation with its first participants, as it is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) conversation: Conversation,
    pub(crate) participants: Vec<Participant>,
    pub(crate) participants_next_cursor: Option<String>,
}

fn body(caller: &Caller, data: ConversationCreated) -> Shown {
    let ConversationCreated {
        conversation,
        participants: members,
    } = data;
    let now = conversation.created_at;
    let own = members.iter().find(|member| member.user_id == caller.user);
    let conversation = Conversation {
        role: own.map(|member| member.role),
        joined_at: own.map(|_| now),
        last_read_seq: own.map(|_| 1),
        unread_count: own.map(|_| 0),
        ..conversation
    };
    let shown = members
        .iter()
        .take(limits::PARTICIPANTS_SHOWN)
        .map(|member| Participant {
            user_id: member.user_id.clone(),
            role: member.role,
            joined_at: now,
            left_at: None,
            last_read_seq: 1,
        });
    let participants: Vec<_> = shown.collect();
    let last = participants.len().saturating_sub(1);
    let participants_next_cursor =
        (members.len() > participants.len()).then(|| participants_cursor(1, last as u64));
    Shown {
        conversation,
        participants,
        participants_next_cursor,
    }
}
