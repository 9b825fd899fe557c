//! Additions, changes of roles, and removals: lock, look for the key, read, decide, write.

use confab_protocol::command::{AddParticipants, Outcome, RemoveParticipant, UpdateParticipant};
use confab_protocol::event::{
    EventType, Member, ParticipantAdded, ParticipantRemoved, ParticipantUpdated,
};
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::limits;
use confab_protocol::resource::{Participant, Role};
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::append::{Appender, role};
use super::changes::lock_counts;
use super::lock::{first_execution, lock, read, reused, settle};
use super::transact::{Asker, Done};
use crate::decision::Change;
use crate::error::CommandError;
use crate::participants::{self, Present, Standing, within_limits};

/// $1 conversation.
pub(super) const FIRST_ADMIN: &str = "\
    select joined_seq from participants \
    where conversation_id = $1 and left_seq is null and position >= 0 and role = 'admin' \
    order by joined_seq, position limit 1";

/// Adds members, all or none.
pub(super) async fn add(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &AddParticipants,
) -> Result<Done, CommandError> {
    let (caller, id) = (asker.caller, command.conversation);
    lock(tx, caller, id).await?;
    let key = command.client_id;
    if let Some(first) = first_execution(tx, caller, id, key, EventType::ParticipantAdded).await? {
        let data: ParticipantAdded = serde_json::from_str(&first.payload)?;
        if !participants::are_added(&data.participants, &command.participants) {
            return Err(reused());
        }
        let outcome = Outcome::Added {
            participants: joined(data.participants, first.seq(), first.at()),
            replayed: first.is_repeated_by(&asker),
        };
        return Ok((outcome, None));
    }
    let locked = read(tx, caller, id).await?;
    let users: Vec<_> = command
        .participants
        .iter()
        .map(|member| member.user_id.clone())
        .collect();
    let present = Present {
        named: present_among(tx, id, &users).await?,
        has_admin: locked.role == Some(Role::Admin) || has_admin(tx, id).await?,
    };
    let append = participants::add(caller, &locked, &command.participants, present)?;
    let counts = lock_counts(tx, caller, &command.participants).await?;
    within_limits(&counts, |_| limits::MEMBERSHIPS_BY_OTHERS)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: asker.event,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let seq = locked.last_seq + 1;
    let added = append.changes.into_iter().find_map(|change| match change {
        Change::Join(members) => Some(members),
        _ => None,
    });
    let added = added.ok_or(CommandError::Stored("an addition of nobody"))?;
    let outcome = Outcome::Added {
        participants: joined(added, seq, locked.now),
        replayed: false,
    };
    Ok((outcome, Some(committed)))
}

/// Changes a member's role.
pub(super) async fn update(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &UpdateParticipant,
) -> Result<Done, CommandError> {
    let (caller, id) = (asker.caller, command.conversation);
    lock(tx, caller, id).await?;
    let key = command.client_id;
    if let Some(first) = first_execution(tx, caller, id, key, EventType::ParticipantUpdated).await?
    {
        let is_same = if first.is_settled {
            first.detail.as_deref() == Some(&role_detail(command))
        } else {
            let data: ParticipantUpdated = serde_json::from_str(&first.payload)?;
            data.user_id == command.user && data.role == command.role
        };
        if !is_same {
            return Err(reused());
        }
        let replayed = first.is_repeated_by(&asker);
        let outcome = role_changed(tx, command, first.seq(), replayed).await?;
        return Ok((outcome, None));
    }
    let locked = read(tx, caller, id).await?;
    let standing = standing(tx, id, &command.user).await?;
    let Some(append) = participants::update(caller, &locked, command, &standing)? else {
        let detail = role_detail(command);
        settle(tx, caller, id, key, (locked.last_seq, Some(&detail))).await?;
        let outcome = role_changed(tx, command, locked.last_seq, false).await?;
        return Ok((outcome, None));
    };
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: asker.event,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let outcome = role_changed(tx, command, locked.last_seq + 1, false).await?;
    Ok((outcome, Some(committed)))
}

/// Removes a member, or lets it leave.
pub(super) async fn remove(
    tx: &mut PgConnection,
    asker: Asker<'_>,
    command: &RemoveParticipant,
) -> Result<Done, CommandError> {
    let (caller, id) = (asker.caller, command.conversation);
    lock(tx, caller, id).await?;
    let key = command.client_id;
    if let Some(first) = first_execution(tx, caller, id, key, EventType::ParticipantRemoved).await?
    {
        let data: ParticipantRemoved = serde_json::from_str(&first.payload)?;
        if data.user_id != command.user {
            return Err(reused());
        }
        let replayed = first.is_repeated_by(&asker);
        let outcome = removed(tx, command, first.seq(), replayed).await?;
        return Ok((outcome, None));
    }
    let locked = read(tx, caller, id).await?;
    let standing = standing(tx, id, &command.user).await?;
    let append = participants::remove(caller, &locked, &command.user, &standing)?;
    let appender = Appender {
        caller,
        conversation: id,
        client_id: key,
        event: asker.event,
        locked: &locked,
    };
    let committed = appender.write(tx, &append).await?;
    let seq = locked.last_seq + 1;
    let outcome = removed(tx, command, seq, false).await?;
    Ok((outcome, Some(committed)))
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

/// Whether any member is an admin.
async fn has_admin(tx: &mut PgConnection, id: ConversationId) -> Result<bool, CommandError> {
    let found: Option<(i64,)> = sqlx::query_as(FIRST_ADMIN)
        .bind(id.0)
        .fetch_optional(tx)
        .await?;
    Ok(found.is_some())
}

async fn standing(
    tx: &mut PgConnection,
    id: ConversationId,
    user: &UserId,
) -> Result<Standing, CommandError> {
    let (own_role, other_admins, longest): (Option<String>, i64, Option<String>) = sqlx::query_as(
        "select \
            (select role from participants where conversation_id = $1 and user_id = $2 and left_seq is null), \
            (select count(*) from participants \
                where conversation_id = $1 and user_id <> $2 and left_seq is null and role = 'admin'), \
            (select user_id from participants where conversation_id = $1 and user_id <> $2 and left_seq is null and position >= 0 \
                order by joined_seq, position limit 1)",
    )
    .bind(id.0)
    .bind(user.as_str())
    .fetch_one(tx)
    .await?;
    Ok(Standing {
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
fn joined(members: Vec<Member>, seq: Seq, at: Timestamp) -> Vec<Participant> {
    let participant = |member: Member| Participant {
        user_id: member.user_id,
        role: member.role,
        joined_at: at,
        left_at: None,
        last_read_seq: seq,
    };
    members.into_iter().map(participant).collect()
}

/// What a change of role asks for, where no event tells: a role that the member had.
fn role_detail(command: &UpdateParticipant) -> String {
    format!("role {} {}", command.role.as_str(), command.user.as_str())
}

/// The membership that had the role at the event `seq`, as it was then.
async fn role_changed(
    tx: &mut PgConnection,
    command: &UpdateParticipant,
    seq: Seq,
    replayed: bool,
) -> Result<Outcome, CommandError> {
    let row: ParticipantRow = sqlx::query_as(
        "select user_id, role, joined_at, null::timestamptz, last_read_seq from participants \
         where conversation_id = $1 and user_id = $2 and joined_seq <= $3 and (left_seq is null or left_seq > $3)",
    )
    .bind(command.conversation.0)
    .bind(command.user.as_str())
    .bind(seq.cast_signed())
    .fetch_one(tx)
    .await?;
    let participant = Participant {
        role: command.role,
        ..participant(row)?
    };
    Ok(Outcome::RoleChanged {
        participant,
        replayed,
    })
}

/// The membership that ended with the event `seq`, and whether the conversation ended right behind it.
async fn removed(
    tx: &mut PgConnection,
    command: &RemoveParticipant,
    seq: Seq,
    replayed: bool,
) -> Result<Outcome, CommandError> {
    let (id, user) = (command.conversation, &command.user);
    let row: ParticipantRow = sqlx::query_as(
        "select user_id, role, joined_at, left_at, last_read_seq from participants \
         where conversation_id = $1 and user_id = $2 and left_seq = $3",
    )
    .bind(id.0)
    .bind(user.as_str())
    .bind(seq.cast_signed())
    .fetch_one(&mut *tx)
    .await?;
    let deleted: Option<(OffsetDateTime,)> =
        sqlx::query_as("select deleted_at from conversations where id = $1 and deleted_seq = $2")
            .bind(id.0)
            .bind(seq.cast_signed() + 1)
            .fetch_optional(tx)
            .await?;
    let conversation_deleted_at = deleted.map(|(at,)| Timestamp::new(at));
    Ok(Outcome::Removed {
        participant: participant(row)?,
        conversation_deleted_at,
        replayed,
    })
}
