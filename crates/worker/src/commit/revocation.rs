//! Revocations: a row each, with a revision in the order of the commits.

use std::time::Duration;

use confab_protocol::command::{Caller, Outcome, Revoke};
use sqlx::PgConnection;

use super::transact::Done;
use crate::error::CommandError;
use crate::revocations::{COLUMNS, RevocationRow, entry, revocation};

/// The key of the advisory lock under which revisions are drawn.
const LOCK: i64 = 0x636f_6e66_6163;

/// Revokes. A repeat stands with a revision of its own, so that a gateway that forgot hears of it again.
pub(super) async fn revoke(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &Revoke,
    token_max_lifetime: Duration,
) -> Result<Done, CommandError> {
    let entry = entry(caller, &command.target)?;
    // A statement of its own: what comes behind it draws a revision above all that are seen.
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *tx)
        .await?;
    let text = format!(
        "insert into revocations as r (revision, tenant, kind, subject, user_id, issued_before, created_at, expires_at) \
         select nextval('revocation_revisions'), $1, $2, $3, $4, b.issued_before, n.at, \
            least(greatest(n.at, b.issued_before) + $6 * interval '1 second', '9999-01-01 00:00:00+00') \
         from (select date_trunc('milliseconds', clock_timestamp()) as at) n \
         cross join lateral (select case when $2 = 'user' then coalesce($5, n.at) end as issued_before) b \
         on conflict (tenant, kind, subject, user_id) do update set revision = excluded.revision, \
            issued_before = greatest(r.issued_before, excluded.issued_before), created_at = excluded.created_at, \
            expires_at = greatest(r.expires_at, excluded.expires_at) \
         returning {COLUMNS}"
    );
    let seconds = i64::try_from(token_max_lifetime.as_secs()).unwrap_or(i64::MAX);
    let row: RevocationRow = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(caller.tenant.as_str())
        .bind(entry.kind)
        .bind(&entry.subject)
        .bind(entry.user)
        .bind(entry.issued_before.map(|at| at.to_datetime()))
        .bind(seconds)
        .fetch_one(tx)
        .await?;
    Ok((Outcome::Revoked(revocation(row)?), None))
}
