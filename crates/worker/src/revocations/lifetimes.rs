//! For how long revocations are kept: as gateways say, the longest of all.
//!
//! A gateway says what it needs with every reading, and lets nobody in before its first one was answered. So each revocation is kept for as
//! long as any gateway may accept what it covers, whatever settings differ; one that needs more than all before it has those that stand
//! kept longer first.

use confab_protocol::revocation::Lifetimes;
use tracing::info;

use crate::database::{Pool, READ_COMMITTED, bounded};
use crate::error::CommandError;

/// The key of the advisory lock under which revisions are drawn.
pub(crate) const LOCK: i64 = 0x636f_6e66_6163;
/// Kept for so many seconds before any gateway has said anything: the default of the gateways for tokens, and a day for sessions.
pub(crate) const DEFAULT_TOKEN_SECONDS: i64 = 31_622_400;
pub(crate) const DEFAULT_SESSION_SECONDS: i64 = 86_400;
/// The longest that counts at $1, `session` or `token`; null where none does.
pub(crate) const LONGEST: &str = "(select max(l.seconds) from revocation_lifetimes l \
    where l.kind = $1 and l.said_at + l.seconds * interval '1 second' > statement_timestamp())";
/// Revocations that are kept longer in one transaction.
const STEP_ROWS: i64 = 1000;

/// Takes note of what a gateway needs. When this returns, what was revoked and what will be is kept for that long.
pub(crate) async fn note(pool: &Pool, said: Lifetimes) -> Result<(), CommandError> {
    let token = (said.token_seconds, DEFAULT_TOKEN_SECONDS);
    note_kind(pool, "token", token).await?;
    let session = (said.session_seconds, DEFAULT_SESSION_SECONDS);
    note_kind(pool, "session", session).await
}

async fn note_kind(
    pool: &Pool,
    kind: &'static str,
    (seconds, default): (u64, i64),
) -> Result<(), CommandError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(MAX_SECONDS);
    if is_noted(pool, kind, seconds).await? {
        return Ok(());
    }
    let former = say(pool, kind, seconds).await?;
    if former.unwrap_or(default) < seconds {
        info!(
            kind,
            seconds, "revocations are kept longer: a gateway needs them"
        );
        keep_longer(pool, kind, seconds).await?;
    }
    let mut connection = pool.acquire().await?;
    let applied =
        "update revocation_lifetimes set is_applied = true where kind = $1 and seconds = $2";
    let applied = sqlx::query(applied).bind(kind).bind(seconds);
    bounded(applied.execute(&mut *connection)).await?;
    connection.release();
    Ok(())
}

/// Ten years and a bit: more than a gateway's setting may be.
const MAX_SECONDS: i64 = 400_000_000;

/// Whether it was said lately, so that nothing is to be written.
async fn is_noted(pool: &Pool, kind: &str, seconds: i64) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let noted = sqlx::query_scalar(
        "select exists (select from revocation_lifetimes where kind = $1 and seconds = $2 and is_applied \
            and said_at > statement_timestamp() - interval '1 minute')",
    )
    .bind(kind)
    .bind(seconds);
    let is_noted = bounded(noted.fetch_one(&mut *connection)).await?;
    connection.release();
    Ok(is_noted)
}

/// Says it; gives the longest that was said before. Behind the lock, so that whoever revokes from now on knows of it.
async fn say(pool: &Pool, kind: &str, seconds: i64) -> Result<Option<i64>, sqlx::Error> {
    bounded(async {
        let mut tx = pool.begin(READ_COMMITTED).await?;
        sqlx::query("select pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut *tx)
            .await?;
        let longest = "select max(seconds) from revocation_lifetimes where kind = $1 and is_applied \
            and said_at + seconds * interval '1 second' > statement_timestamp()";
        let former = sqlx::query_scalar(longest)
            .bind(kind)
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query(
            "insert into revocation_lifetimes as l (kind, seconds, said_at, is_applied) values ($1, $2, statement_timestamp(), false) \
             on conflict (kind, seconds) do update set said_at = excluded.said_at, \
                is_applied = l.is_applied and l.said_at + l.seconds * interval '1 second' > statement_timestamp()",
        )
        .bind(kind)
        .bind(seconds)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(former)
    })
    .await
}

#[derive(Debug, sqlx::FromRow)]
struct Step {
    last: Option<i64>,
}

/// Has what stands kept for so long, each with a revision of its own, so that gateways hear of it.
async fn keep_longer(pool: &Pool, kind: &str, seconds: i64) -> Result<(), sqlx::Error> {
    let (mut after, up_to) = (0, highest(pool).await?);
    loop {
        let step: Step = bounded(async {
            let mut tx = pool.begin(READ_COMMITTED).await?;
            sqlx::query("select pg_advisory_xact_lock($1)")
                .bind(LOCK)
                .execute(&mut *tx)
                .await?;
            let step = sqlx::query_as(
                "with page as materialized (select r.revision, r.kind, r.expires_at, \
                    least(greatest(r.created_at, r.issued_before) + $4 * interval '1 second', '9999-01-01 00:00:00+00') as kept \
                    from revocations r where r.revision > $1 and r.revision <= $2 order by r.revision limit $3), \
                 longer as (update revocations r set revision = nextval('revocation_revisions'), expires_at = p.kept \
                    from page p where r.revision = p.revision and p.expires_at < p.kept and (p.kind = 'session') = ($5 = 'session')) \
                 select max(revision) as last from page",
            )
            .bind(after)
            .bind(up_to)
            .bind(STEP_ROWS)
            .bind(seconds)
            .bind(kind)
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(step)
        })
        .await?;
        match step.last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

async fn highest(pool: &Pool) -> Result<i64, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let highest =
        "select coalesce((select revision from revocations order by revision desc limit 1), 0)";
    let highest = bounded(sqlx::query_scalar(highest).fetch_one(&mut *connection)).await?;
    connection.release();
    Ok(highest)
}
