//! Carrying out an [`Append`]: events, projections and the outbox row, in the caller's transaction and under its lock.

use confab_protocol::command::Caller;
use confab_protocol::event::{LogEntry, Member};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::resource::Role;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::CommandError;
use crate::outbox::{Committed, outgoing};
use crate::participants::{Append, Change, Locked};

/// Members above which a conversation is large. Measured: an append whose minute is over writes 7 µs a member, so that 200 such
/// conversations of 100 members hold a batch up for 140 ms once a minute; of 1,000 members it would be 1.4 s.
const LARGE: i32 = 100;

/// Where and by whom is appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appender<'a> {
    pub(super) caller: &'a Caller,
    pub(super) conversation: ConversationId,
    pub(super) client_id: ClientId,
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
        for change in &append.changes {
            self.change(tx, change, first, last).await?;
        }
        let mut events = Vec::new();
        for (n, (event_type, payload)) in append.events.iter().enumerate() {
            // The key stands with the first event: that is the one a repeat finds.
            let client_id = (n == 0).then_some(self.client_id);
            let entry = LogEntry {
                conversation: self.conversation,
                seq: first + n as Seq,
                id: EventId(Uuid::now_v7()),
                event_type: *event_type,
                actor: &self.caller.user,
                client_id,
                created_at: self.locked.now,
                edited_at: None,
                deleted_at: None,
                payload,
                target_seq: None,
                target: None,
            };
            insert_event(tx, &entry).await?;
            events.push(outgoing(&self.caller.tenant, &entry));
        }
        self.advance(tx, last).await?;
        let row = insert_outbox(tx, self.conversation, first, last, self.locked).await?;
        Ok(Committed { row, events })
    }

    /// Moves the conversation's head, and in `recents` the time of all its members, where that is a minute old: as
    /// `append_messages` does it.
    async fn advance(&self, tx: &mut PgConnection, last: Seq) -> Result<(), CommandError> {
        let (is_due,): (bool,) = sqlx::query_as(
            "update conversations set last_seq = $2, last_event_at = $3, \
                active_at = case when $3 >= active_at + interval '1 minute' then $3 else active_at end \
             where id = $1 returning active_at = $3",
        )
        .bind(self.conversation.0)
        .bind(last.cast_signed())
        .bind(self.locked.now.to_datetime())
        .fetch_one(&mut *tx)
        .await?;
        if is_due {
            sqlx::query("update recents set active_at = $2 where conversation_id = $1")
                .bind(self.conversation.0)
                .bind(self.locked.now.to_datetime())
                .execute(tx)
                .await?;
        }
        Ok(())
    }

    async fn change(
        &self,
        tx: &mut PgConnection,
        change: &Change,
        first: Seq,
        last: Seq,
    ) -> Result<(), CommandError> {
        match change {
            Change::Join(members) => self.join(tx, members, first).await,
            Change::Leave(user) => self.leave(tx, user, first).await,
            Change::SetRole(user, role) => {
                sqlx::query("update participants set role = $3 where conversation_id = $1 and user_id = $2 and left_seq is null")
                    .bind(self.conversation.0)
                    .bind(user.as_str())
                    .bind(role.as_str())
                    .execute(tx)
                    .await?;
                Ok(())
            }
            Change::Delete => {
                sqlx::query("update conversations set deleted_at = $2, deleted_seq = $3, updated_at = $2 where id = $1")
                    .bind(self.conversation.0)
                    .bind(self.locked.now.to_datetime())
                    .bind(last.cast_signed())
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("delete from recents where conversation_id = $1")
                    .bind(self.conversation.0)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("delete from direct_pairs where conversation_id = $1")
                    .bind(self.conversation.0)
                    .execute(tx)
                    .await?;
                Ok(())
            }
        }
    }

    /// Enters memberships; the users' counts are locked in the order of their ids.
    pub(super) async fn join(
        &self,
        tx: &mut PgConnection,
        members: &[Member],
        joined: Seq,
    ) -> Result<(), CommandError> {
        let users: Vec<&str> = members
            .iter()
            .map(|member| member.user_id.as_str())
            .collect();
        let roles: Vec<&str> = members.iter().map(|member| member.role.as_str()).collect();
        sqlx::query(
            "insert into participants \
                (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq) \
             select $1, m.user_id, $2, $3, m.role, m.n::integer - 1, $4, $2 \
             from unnest($5::text[], $6::text[]) with ordinality as m(user_id, role, n)",
        )
        .bind(self.conversation.0)
        .bind(joined.cast_signed())
        .bind(self.caller.tenant.as_str())
        .bind(self.locked.now.to_datetime())
        .bind(&users)
        .bind(roles)
        .execute(&mut *tx)
        .await?;
        sqlx::query("update user_counts set memberships = memberships + 1 where tenant = $1 and user_id = any($2)")
            .bind(self.caller.tenant.as_str())
            .bind(&users)
            .execute(&mut *tx)
            .await?;
        self.list(tx, &users).await
    }

    /// Counts new members, and enters them into `recents`. A conversation that grows large is there at infinity from now on, which
    /// every list looks at: its appends write nothing for their members.
    async fn list(&self, tx: &mut PgConnection, users: &[&str]) -> Result<(), CommandError> {
        let (grew_large,): (bool,) = sqlx::query_as(
            "update conversations set members = members + $2, \
                active_at = case when members + $2 > $3 then 'infinity' else active_at end \
             where id = $1 returning members > $3 and members - $2 <= $3",
        )
        .bind(self.conversation.0)
        .bind(i32::try_from(users.len()).unwrap_or(i32::MAX))
        .bind(LARGE)
        .fetch_one(&mut *tx)
        .await?;
        if grew_large {
            sqlx::query("update recents set active_at = 'infinity' where conversation_id = $1")
                .bind(self.conversation.0)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query(
            "insert into recents (conversation_id, user_id, tenant, type, active_at) \
             select c.id, u.id, c.tenant, c.type, c.active_at from conversations c \
             cross join unnest($2::text[]) as u(id) where c.id = $1 \
             on conflict (conversation_id, user_id) do update set active_at = excluded.active_at",
        )
        .bind(self.conversation.0)
        .bind(users)
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn leave(
        &self,
        tx: &mut PgConnection,
        user: &UserId,
        left: Seq,
    ) -> Result<(), CommandError> {
        sqlx::query(
            "update participants set left_seq = $3, left_at = $4 \
             where conversation_id = $1 and user_id = $2 and left_seq is null",
        )
        .bind(self.conversation.0)
        .bind(user.as_str())
        .bind(left.cast_signed())
        .bind(self.locked.now.to_datetime())
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from recents where conversation_id = $1 and user_id = $2")
            .bind(self.conversation.0)
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("update user_counts set memberships = memberships - 1 where tenant = $1 and user_id = $2")
            .bind(self.caller.tenant.as_str())
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("update conversations set members = members - 1 where id = $1")
            .bind(self.conversation.0)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Locks the users' counts, in the order of their ids, and reads them.
pub(super) async fn lock_counts(
    tx: &mut PgConnection,
    caller: &Caller,
    members: &[Member],
) -> Result<Vec<(UserId, u64)>, CommandError> {
    let mut users: Vec<&str> = members
        .iter()
        .map(|member| member.user_id.as_str())
        .collect();
    users.sort_unstable();
    sqlx::query(
        "insert into user_counts (tenant, user_id, memberships) \
         select $1, u, 0 from unnest($2::text[]) as u on conflict do nothing",
    )
    .bind(caller.tenant.as_str())
    .bind(&users)
    .execute(&mut *tx)
    .await?;
    let rows: Vec<(String, i32)> = sqlx::query_as(
        "select user_id, memberships from user_counts where tenant = $1 and user_id = any($2) \
         order by user_id for no key update",
    )
    .bind(caller.tenant.as_str())
    .bind(users)
    .fetch_all(tx)
    .await?;
    let read = |(user, count): (String, i32)| {
        let user = user
            .try_into()
            .map_err(|_bad| CommandError::Stored("a user id"))?;
        Ok((user, u64::try_from(count).unwrap_or_default()))
    };
    rows.into_iter().map(read).collect()
}

/// Appends one event.
pub(super) async fn insert_event(
    tx: &mut PgConnection,
    entry: &LogEntry<'_>,
) -> Result<(), CommandError> {
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, client_id, created_at, payload) \
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(entry.conversation.0)
    .bind(entry.seq.cast_signed())
    .bind(entry.id.0)
    .bind(entry.event_type.as_str())
    .bind(entry.actor.as_str())
    .bind(entry.client_id.map(|id| id.0))
    .bind(entry.created_at.to_datetime())
    .bind(entry.payload)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the events from `first` to `last` are to be published.
pub(super) async fn insert_outbox(
    tx: &mut PgConnection,
    conversation: ConversationId,
    first: Seq,
    last: Seq,
    locked: &Locked,
) -> Result<i64, CommandError> {
    let seqs: Vec<i64> = (first..=last).map(u64::cast_signed).collect();
    let (id,): (i64,) = sqlx::query_as(
        "insert into outbox (created_at, conversation_ids, seqs) values ($1, $2, $3) returning id",
    )
    .bind(locked.now.to_datetime())
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
