//! What of the outbox lingers, as Postgres says.

use confab_protocol::event::{EventType, MembershipChange};
use confab_protocol::ids::{ConversationId, TenantId, UserId};
use sqlx::FromRow as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::keys::Key;
use crate::database::Pool;
use crate::outbox::on;

/// Rows are counted up to here.
const MAX_COUNTED: i64 = 10_000;

/// What a look at the outbox finds; rows that were stepped over do not count.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Look {
    /// The highest id there is; 0 for none.
    pub(super) top: i64,
    /// The lowest id of a row that is not published.
    pub(super) oldest: Option<i64>,
    /// How many rows up to an id are not published, counted up to a bound.
    pub(super) lingering: i64,
    /// How many rows were stepped over, counted up to a bound.
    pub(super) stepped_over: i64,
}

/// Looks at the outbox, and counts what is not published up to an id.
pub(super) async fn look(pool: &Pool, up_to: Option<i64>) -> Result<Look, sqlx::Error> {
    on(pool, async |connection| sqlx::query_as(
        "select coalesce((select id from outbox order by id desc limit 1), 0) as top, \
            (select id from outbox where published_at is null and attempts = 0 order by id limit 1) as oldest, \
            (select count(*) from (select from outbox where published_at is null and attempts = 0 and id <= $1 limit $2) l) as lingering, \
            (select count(*) from (select from outbox where published_at is null and attempts > 0 limit $2) s) as stepped_over",
    )
    .bind(up_to.unwrap_or(-1))
    .bind(MAX_COUNTED)
    .fetch_one(connection).await)
    .await
}

/// The ids of rows that are not published, above `after` and up to `up_to`, in order: the newest so many.
pub(super) async fn unpublished(
    pool: &Pool,
    (after, up_to): (i64, i64),
    most: usize,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut ids: Vec<i64> = on(pool, async |connection| sqlx::query_scalar(
        "select id from outbox where published_at is null and attempts = 0 and id > $1 and id <= $2 order by id desc limit $3",
    )
    .bind(after)
    .bind(up_to)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(connection).await)
    .await?;
    ids.reverse();
    Ok(ids)
}

/// The keys of the events of rows, each with its row. What is not in the log has none.
pub(super) async fn keys(pool: &Pool, rows: &[i64]) -> Result<Vec<(i64, Key)>, sqlx::Error> {
    let found = on(pool, async |connection| sqlx::query(
        "select o.id, k.conversation, k.seq, c.tenant, e.type, e.payload from outbox o \
         cross join lateral unnest(o.conversation_ids, o.seqs) as k(conversation, seq) \
         cross join lateral (select c.tenant from conversations c where c.id = k.conversation limit 1) c \
         cross join lateral (select e.type, case when e.type in ('conversation.created', 'participant.added') then e.payload end as payload \
            from events e where e.conversation_id = k.conversation and e.seq = k.seq limit 1) e \
         where o.id = any($1) and o.published_at is null order by o.id",
    )
    .bind(rows)
    .fetch_all(connection).await)
    .await?;
    found
        .iter()
        .filter_map(|row| key(row).transpose())
        .collect()
}

#[derive(sqlx::FromRow)]
struct Found {
    id: i64,
    conversation: Uuid,
    seq: i64,
    tenant: String,
    r#type: String,
    payload: Option<String>,
}

/// None of what this version does not store.
fn key(row: &PgRow) -> Result<Option<(i64, Key)>, sqlx::Error> {
    let found = Found::from_row(row)?;
    let Ok(tenant) = found.tenant.parse::<TenantId>() else {
        return Ok(None);
    };
    let key = Key {
        tenant,
        conversation: ConversationId(found.conversation),
        seq: found.seq.cast_unsigned(),
        joined: joined(&found.r#type, found.payload.as_deref()),
    };
    Ok(Some((found.id, key)))
}

/// Whom an event's payload adds.
fn joined(event_type: &str, payload: Option<&str>) -> Vec<UserId> {
    let (Ok(event_type), Some(payload)) = (event_type.parse::<EventType>(), payload) else {
        return Vec::new();
    };
    // As it stands in the encoded event.
    let data = format!(r#"{{"data":{payload}}}"#);
    match MembershipChange::parse(event_type, data.as_bytes()) {
        Ok(Some(MembershipChange::Joined(users))) => users,
        Ok(_) | Err(_) => Vec::new(),
    }
}
