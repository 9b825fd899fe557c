//! Revocations: a row each, with a revision in the order of the commits.

use confab_protocol::command::{Caller, Outcome, Revoke};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::revocation::{Revocation, RevocationTarget};
use sqlx::PgConnection;
use uuid::Uuid;

use super::lock::{reused, settle};
use super::transact::Done;
use crate::error::CommandError;
use crate::revocations::lifetimes::{
    DEFAULT_SESSION_SECONDS, DEFAULT_TOKEN_SECONDS, LOCK, LONGEST,
};
use crate::revocations::{COLUMNS, Entry, RevocationRow, entry, revocation};

/// Sessions of a user that are revoked at once by itself, at most.
pub(super) const MAX_SESSIONS: i64 = 1000;
/// How long after a refusal there may be room, in milliseconds.
const RETRY_MS: u64 = 60_000;

/// Revokes. A repeat stands with a revision of its own, so that a gateway that forgot hears of it again.
pub(super) async fn revoke(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &Revoke,
) -> Result<Done, CommandError> {
    let entry = entry(caller, &command.target)?;
    // A statement of its own: what comes behind it draws a revision above all that are seen.
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *tx)
        .await?;
    if let Some(key) = command.key
        && let Some(first) = first_use(tx, caller, key).await?
    {
        if !is_same(&first.target, &command.target) {
            return Err(reused());
        }
        return Ok((Outcome::Revoked(first), None));
    }
    let is_session = entry.kind == "session";
    if is_session && !entry.user.is_empty() && !has_room(tx, caller, &entry).await? {
        let many = format!("{MAX_SESSIONS} sessions of this user were revoked lately");
        return Err(Failure::new(Code::RateLimited, many)
            .retry_after(RETRY_MS)
            .into());
    }
    let (lifetime, default) = if is_session {
        ("session", DEFAULT_SESSION_SECONDS)
    } else {
        ("token", DEFAULT_TOKEN_SECONDS)
    };
    let text = format!(
        "insert into revocations as r (revision, tenant, kind, subject, user_id, issued_before, created_at, expires_at) \
         select nextval('revocation_revisions'), $2, $3, $4, $5, b.issued_before, n.at, \
            least(greatest(n.at, b.issued_before) + coalesce({LONGEST}, $7) * interval '1 second', '9999-01-01 00:00:00+00') \
         from (select date_trunc('milliseconds', clock_timestamp()) as at) n \
         cross join lateral (select case when $3 = 'user' then coalesce($6, n.at) end as issued_before) b \
         on conflict (tenant, kind, subject, user_id) do update set revision = excluded.revision, \
            issued_before = greatest(r.issued_before, excluded.issued_before), created_at = excluded.created_at, \
            expires_at = greatest(r.expires_at, excluded.expires_at) \
         returning {COLUMNS}"
    );
    let row: RevocationRow = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(lifetime)
        .bind(caller.tenant.as_str())
        .bind(entry.kind)
        .bind(&entry.subject)
        .bind(entry.user)
        .bind(entry.issued_before.map(|at| at.to_datetime()))
        .bind(default)
        .fetch_one(&mut *tx)
        .await?;
    let revocation = revocation(row)?;
    if let Some(key) = command.key {
        let detail = serde_json::to_string(&revocation)?;
        settle(tx, caller, NOWHERE, key, (0, Some(&detail))).await?;
    }
    Ok((Outcome::Revoked(revocation), None))
}

/// Where keys of revocations stand, which are of no conversation. Their tenant is in the key.
const NOWHERE: ConversationId = ConversationId(Uuid::nil());

/// What the first use of a key revoked.
async fn first_use(
    tx: &mut PgConnection,
    caller: &Caller,
    key: ClientId,
) -> Result<Option<Revocation>, CommandError> {
    let detail: Option<Option<String>> = sqlx::query_scalar(
        "select detail from settled_keys where conversation_id = $1 and actor = $2 and client_id = $3",
    )
    .bind(NOWHERE.0)
    .bind(caller.user.as_str())
    .bind(key.0)
    .fetch_optional(tx)
    .await?;
    let Some(detail) = detail else {
        return Ok(None);
    };
    let detail = detail.ok_or(CommandError::Stored("a key of a revocation"))?;
    Ok(Some(serde_json::from_str(&detail)?))
}

/// Whether what was revoked is what is asked for. A time that is not asked for is that of the first use; one that is may have been
/// outdone by an earlier revocation.
fn is_same(revoked: &RevocationTarget, asked: &RevocationTarget) -> bool {
    match (revoked, asked) {
        (
            RevocationTarget::User {
                user: one,
                issued_before: at,
            },
            RevocationTarget::User {
                user,
                issued_before,
            },
        ) => one == user && issued_before.is_none_or(|asked| at.is_some_and(|at| at >= asked)),
        (revoked, asked) => revoked == asked,
    }
}

/// Whether a user may revoke one more of its sessions, or has revoked this one. Behind the lock, so that no two take the last place.
async fn has_room(
    tx: &mut PgConnection,
    caller: &Caller,
    entry: &Entry<'_>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from revocations where tenant = $1 and kind = 'session' and subject = $3 and user_id = $2) \
            or (select count(*) from (select from revocations where tenant = $1 and user_id = $2 and kind = 'session' \
                and user_id <> '' and expires_at > statement_timestamp() limit $4) r) < $4",
    )
    .bind(caller.tenant.as_str())
    .bind(entry.user)
    .bind(&entry.subject)
    .bind(MAX_SESSIONS)
    .fetch_one(tx)
    .await
}
