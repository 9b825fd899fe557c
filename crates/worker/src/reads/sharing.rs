//! Which users share a conversation with the caller.

use confab_protocol::command::Caller;
use confab_protocol::ids::UserId;
use sqlx::PgConnection;

use crate::error::CommandError;

/// Those of $3 who are members of a conversation of $2's now, in their order: look-ups alone, however little Postgres knows of the tables.
pub(super) const SHARING: &str = "\
    select u.id from unnest($3::text[]) with ordinality as u(id, n) \
    cross join lateral (select from participants p \
        cross join lateral (select from participants q \
            where q.conversation_id = p.conversation_id and q.user_id = u.id and q.left_seq is null limit 1) q \
        where p.tenant = $1 and p.user_id = $2 and p.left_seq is null limit 1) s \
    order by u.n";

/// Those of the users who share a conversation with the caller; all of them where it acts for the product.
pub(super) async fn read(
    connection: &mut PgConnection,
    caller: &Caller,
    users: &[UserId],
) -> Result<Vec<UserId>, CommandError> {
    if caller.admin {
        return Ok(users.to_vec());
    }
    let named: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let sharing: Vec<(String,)> = sqlx::query_as(SHARING)
        .bind(caller.tenant.as_str())
        .bind(caller.user.as_str())
        .bind(named)
        .fetch_all(connection)
        .await?;
    let users = sharing.into_iter().map(|(user,)| user.try_into());
    users
        .collect::<Result<_, _>>()
        .map_err(|_bad| CommandError::Stored("a user id"))
}
