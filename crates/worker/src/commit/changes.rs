//! Changes of the projections, in the caller's transaction and under its lock.

use confab_protocol::command::Caller;
use confab_protocol::event::Member;
use confab_protocol::ids::{Seq, UserId};
use confab_protocol::resource::ConversationType;
use confab_protocol::timestamp::Timestamp;
use sqlx::PgConnection;

use super::append::Appender;
use crate::decision::{Change, StoredMessage};
use crate::error::CommandError;

/// Members above which a conversation is large. Measured: an append whose minute is over writes 7 µs a member, so that 200 such
/// conversations of 100 members hold a batch up for 140 ms once a minute; of 1,000 members it would be 1.4 s.
const LARGE: i32 = 100;

impl Appender<'_> {
    /// Carries out a change; `first` and `last` are the events that are appended with it.
    pub(super) async fn change(
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
            Change::SetMetadata(metadata, version) => {
                sqlx::query("update conversations set metadata = $2, version = $3, updated_at = $4 where id = $1")
                    .bind(self.conversation.0)
                    .bind(metadata.as_str())
                    .bind(version.cast_signed())
                    .bind(self.locked.now.to_datetime())
                    .execute(tx)
                    .await?;
                Ok(())
            }
            Change::Delete => self.delete(tx, last).await,
        }
    }

    /// Writes what a message is from now on over what it was: its content is nowhere else.
    pub(super) async fn rewrite(
        &self,
        tx: &mut PgConnection,
        message: &StoredMessage,
    ) -> Result<(), CommandError> {
        sqlx::query(
            "update events set payload = $3, edited_at = $4, deleted_at = $5, version = $6 \
             where conversation_id = $1 and seq = $2",
        )
        .bind(self.conversation.0)
        .bind(message.seq.cast_signed())
        .bind(&message.payload)
        .bind(message.edited_at.map(Timestamp::to_datetime))
        .bind(message.deleted_at.map(Timestamp::to_datetime))
        .bind(i32::try_from(message.version).unwrap_or(i32::MAX))
        .execute(tx)
        .await?;
        Ok(())
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

    /// Ends the conversation with the event `last`, the memberships that are left included. They are locked in the order of their users, as
    /// read marks lock them; then their users' counts likewise, looked up one by one: they are up to 100,000 among those of a whole tenant.
    async fn delete(&self, tx: &mut PgConnection, last: Seq) -> Result<(), CommandError> {
        let at = self.locked.now.to_datetime();
        sqlx::query(
            "select count(*) from (select from participants where conversation_id = $1 and left_seq is null \
             order by user_id for no key update) as locked",
        )
        .bind(self.conversation.0)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "select count(*) from (select from user_counts where tenant = $2 and user_id = any(array( \
                select user_id from participants where conversation_id = $1 and left_seq is null)) \
             order by user_id for no key update) as locked",
        )
        .bind(self.conversation.0)
        .bind(self.caller.tenant.as_str())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update user_counts set memberships = memberships - 1 where tenant = $2 and user_id = any(array( \
                select user_id from participants where conversation_id = $1 and left_seq is null))",
        )
        .bind(self.conversation.0)
        .bind(self.caller.tenant.as_str())
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "update participants set left_seq = $2, left_at = $3 where conversation_id = $1 and left_seq is null",
        )
        .bind(self.conversation.0)
        .bind(last.cast_signed())
        .bind(at)
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from recents where conversation_id = $1")
            .bind(self.conversation.0)
            .execute(&mut *tx)
            .await?;
        if self.locked.r#type == ConversationType::Direct {
            sqlx::query(
                "delete from direct_pairs where tenant = $2 and conversation_id = $1 \
                    and user_a = (select min(user_id) from participants where conversation_id = $1) \
                    and user_b = (select max(user_id) from participants where conversation_id = $1)",
            )
            .bind(self.conversation.0)
            .bind(self.caller.tenant.as_str())
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "update conversations set deleted_at = $2, deleted_seq = $3, updated_at = $2, members = 0 where id = $1",
        )
        .bind(self.conversation.0)
        .bind(at)
        .bind(last.cast_signed())
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
