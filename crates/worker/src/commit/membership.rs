//! Additions and removals: lock, look for the key, read, decide, write.

use confab_protocol::command::{
    AddParticipants, Caller, Command, Outcome, RemoveParticipant, Request,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::{EventType, Member, ParticipantAdded, ParticipantRemoved};
use confab_protocol::ids::{ClientId, ConversationId, UserId};
use confab_protocol::limits;
use confab_protocol::resource::Participant;
use confab_protocol::timestamp::Timestamp;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::Committer;
use super::append::{Appender, lock_counts, role};
use crate::database::acquire;
use crate::error::CommandError;
use crate::outbox::Committed;
use crate::participants::{self, Leaving, Locked, within_limits};

/// What a transaction gives: the outcome, and what is to be published.
pub(super) type Done = (Outcome, Option<Committed>);

impl Committer {
    /// Carries out a command in one transaction.
    pub(super) async fn transact(&self, request: &Request) -> Result<Done, CommandError> {
        let mut connection = acquire(&self.pool).await?;
        let mut tx = connection.begin().await?;
        let caller = &request.caller;
        let done = match &request.command {
            Command::AddParticipants(command) => add(&mut tx, caller, command).await?,
            Command::RemoveParticipant(command) => remove(&mut tx, caller, command).await?,
            Command::CreateConversation(command) => {
                let (created, committed) =
                    super::creation::create(&mut tx, caller, command).await?;
                tx.commit().await?;
                return created
                    .map(|created| (Outcome::Created(created), committed))
                    .map_err(CommandError::from);
            }
            Command::SendMessage(_) => {
                return Err(CommandError::Stored("messages are committed in batches"));
            }
            Command::Revoke(command) => {
                super::revocation::revoke(&mut tx, caller, command, self.token_max_lifetime).await?
            }
            _ => return Err(CommandError::Stored("not yet")),
        };
        tx.commit().await?;
        Ok(done)
    }
}

async fn add(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &AddParticipants,
) -> Result<Done, CommandError> {
    let id = command.conversation;
    lock(tx, caller, id).await?;
    let key = command.client_id;
    if let Some(first) = first_execution(tx, caller, id, key, EventType::ParticipantAdded).await? {
        let data: ParticipantAdded = serde_json::from_str(&first.payload)?;
        let participants = joined(
            data.participants,
            first.seq,
            Timestamp::new(first.created_at),
        );
        return Ok((Outcome::Added { participants }, None));
    }
    let locked = read(tx, caller, id).await?;
    let users: Vec<_> = command
        .participants
        .iter()
        .map(|member| member.user_id.clone())
        .collect();
    let present = present_among(tx, id, &users).await?;
    let append = participants::add(caller, &locked, &command.participants, present)?;
    let counts = lock_counts(tx, caller, &command.participants).await?;
    within_limits(&counts, |_| limits::MEMBERSHIPS_BY_OTHERS)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let seq = locked.last_seq.cast_signed() + 1;
    let participants = joined(command.participants.clone(), seq, locked.now);
    Ok((Outcome::Added { participants }, Some(committed)))
}

async fn remove(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &RemoveParticipant,
) -> Result<Done, CommandError> {
    let id = command.conversation;
    lock(tx, caller, id).await?;
    let key = command.client_id;
    if let Some(first) = first_execution(tx, caller, id, key, EventType::ParticipantRemoved).await?
    {
        let data: ParticipantRemoved = serde_json::from_str(&first.payload)?;
        return Ok((removed(tx, id, &data.user_id, first.seq).await?, None));
    }
    let locked = read(tx, caller, id).await?;
    let leaving = leaving(tx, id, &command.user).await?;
    let append = participants::remove(caller, &locked, &command.user, &leaving)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let seq = locked.last_seq.cast_signed() + 1;
    Ok((removed(tx, id, &command.user, seq).await?, Some(committed)))
}

/// Locks the conversation's row, in a statement of its own: what follows sees all that committed while this waited.
async fn lock(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
) -> Result<(), CommandError> {
    let found: Option<(bool,)> = sqlx::query_as(
        "select true from conversations where id = $1 and tenant = $2 for no key update",
    )
    .bind(id.0)
    .bind(caller.tenant.as_str())
    .fetch_optional(tx)
    .await?;
    found
        .map(|_| ())
        .ok_or_else(|| Failure::of(Code::ConversationNotFound).into())
}

/// What an earlier execution of a command appended.
#[derive(sqlx::FromRow)]
struct FirstExecution {
    seq: i64,
    #[sqlx(rename = "type")]
    event_type: String,
    created_at: OffsetDateTime,
    payload: String,
}

/// The event that an earlier execution of the command appended.
async fn first_execution(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
    key: ClientId,
    expected: EventType,
) -> Result<Option<FirstExecution>, CommandError> {
    let found: Option<FirstExecution> = sqlx::query_as(
        "select seq, type, created_at, payload from events where conversation_id = $1 and actor = $2 and client_id = $3",
    )
    .bind(id.0)
    .bind(caller.user.as_str())
    .bind(key.0)
    .fetch_optional(tx)
    .await?;
    match found {
        Some(first) if first.event_type != expected.as_str() => {
            Err(Failure::of(Code::IdempotencyKeyReused).into())
        }
        found => Ok(found),
    }
}

async fn read(
    tx: &mut PgConnection,
    caller: &Caller,
    id: ConversationId,
) -> Result<Locked, CommandError> {
    let (r#type, last_seq, members, is_deleted, own_role, was_member, now): (
        String,
        i64,
        i32,
        bool,
        Option<String>,
        bool,
        OffsetDateTime,
    ) = sqlx::query_as(
        "select c.type, c.last_seq, c.members, c.deleted_at is not null, \
            (select p.role from participants p \
                where p.conversation_id = c.id and p.user_id = $2 and p.left_seq is null limit 1), \
            exists (select 1 from participants p where p.conversation_id = c.id and p.user_id = $2), \
            greatest(date_trunc('milliseconds', clock_timestamp()), c.last_event_at) \
         from conversations c where c.id = $1",
    )
    .bind(id.0)
    .bind(caller.user.as_str())
    .fetch_one(tx)
    .await?;
    Ok(Locked {
        r#type: r#type
            .parse()
            .map_err(|_unknown| CommandError::Stored("a conversation's type"))?,
        last_seq: last_seq.cast_unsigned(),
        members: u64::try_from(members).unwrap_or_default(),
        is_deleted,
        role: own_role.as_deref().map(role).transpose()?,
        was_member,
        now: Timestamp::new(now),
    })
}

async fn present_among(
    tx: &mut PgConnection,
    id: ConversationId,
    users: &[UserId],
) -> Result<Vec<UserId>, CommandError> {
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let rows: Vec<(String,)> = sqlx::query_as(
        "select user_id from participants where conversation_id = $1 and user_id = any($2) and left_seq is null \
         order by user_id",
    )
    .bind(id.0)
    .bind(names)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(user,)| {
            user.try_into()
                .map_err(|_bad| CommandError::Stored("a user id"))
        })
        .collect()
}

async fn leaving(
    tx: &mut PgConnection,
    id: ConversationId,
    user: &UserId,
) -> Result<Leaving, CommandError> {
    let (own_role, other_admins, longest): (Option<String>, i64, Option<String>) = sqlx::query_as(
        "select \
            (select role from participants where conversation_id = $1 and user_id = $2 and left_seq is null), \
            (select count(*) from participants \
                where conversation_id = $1 and user_id <> $2 and left_seq is null and role = 'admin'), \
            (select user_id from participants where conversation_id = $1 and user_id <> $2 and left_seq is null \
                order by joined_seq, position limit 1)",
    )
    .bind(id.0)
    .bind(user.as_str())
    .fetch_one(tx)
    .await?;
    Ok(Leaving {
        role: own_role.as_deref().map(role).transpose()?,
        other_admins: other_admins.cast_unsigned(),
        longest: longest
            .map(|user| {
                user.try_into()
                    .map_err(|_bad| CommandError::Stored("a user id"))
            })
            .transpose()?,
    })
}

/// A row of `participants` as clients see it.
pub(crate) type ParticipantRow = (String, String, OffsetDateTime, Option<OffsetDateTime>, i64);

/// The participant of a row.
pub(crate) fn participant(row: ParticipantRow) -> Result<Participant, CommandError> {
    let (user_id, own_role, joined_at, left_at, last_read_seq) = row;
    Ok(Participant {
        user_id: user_id
            .try_into()
            .map_err(|_bad| CommandError::Stored("a user id"))?,
        role: role(&own_role)?,
        joined_at: Timestamp::new(joined_at),
        left_at: left_at.map(Timestamp::new),
        last_read_seq: last_read_seq.cast_unsigned(),
    })
}

/// Memberships as they began with the event `seq`: what an addition is answered with, whatever became of them since.
fn joined(members: Vec<Member>, seq: i64, at: Timestamp) -> Vec<Participant> {
    let participant = |member: Member| Participant {
        user_id: member.user_id,
        role: member.role,
        joined_at: at,
        left_at: None,
        last_read_seq: seq.cast_unsigned(),
    };
    members.into_iter().map(participant).collect()
}

/// The membership that ended with the event `seq`, and whether the conversation ended right behind it.
async fn removed(
    tx: &mut PgConnection,
    id: ConversationId,
    user: &UserId,
    seq: i64,
) -> Result<Outcome, CommandError> {
    let row: ParticipantRow = sqlx::query_as(
        "select user_id, role, joined_at, left_at, last_read_seq from participants \
         where conversation_id = $1 and user_id = $2 and left_seq = $3",
    )
    .bind(id.0)
    .bind(user.as_str())
    .bind(seq)
    .fetch_one(&mut *tx)
    .await?;
    let deleted: Option<(OffsetDateTime,)> =
        sqlx::query_as("select deleted_at from conversations where id = $1 and deleted_seq = $2")
            .bind(id.0)
            .bind(seq + 1)
            .fetch_optional(tx)
            .await?;
    let conversation_deleted_at = deleted.map(|(at,)| Timestamp::new(at));
    Ok(Outcome::Removed {
        participant: participant(row)?,
        conversation_deleted_at,
    })
}
