//! The events of outbox rows, as they are to be published now: many rows in one statement, bounded in bytes.

use confab_bus::Outgoing;
use confab_protocol::ids::{TenantId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, Row as _};
use uuid::Uuid;

use super::backlog::Row;
use crate::database::Pool;
use crate::outbox::{on, outgoing};
use crate::reads::{EVENT_COLUMNS, EVENT_TARGET, EventRow, entry_of};

/// Events read at once, and their bytes; the first row is read whole.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: i64 = 8 << 20;

/// A row with its events.
#[derive(Debug)]
pub(super) struct ReadRow {
    pub(super) row: Row,
    pub(super) events: Vec<Outgoing>,
    /// Keys of events that are not there.
    pub(super) missing: Vec<(Uuid, i64)>,
    /// Keys of events that cannot be read.
    pub(super) unreadable: Vec<(Uuid, i64)>,
}

/// An event of an outbox row.
enum Read {
    Event(Box<Outgoing>),
    Missing,
    Unreadable,
}

/// Reads the first of these rows, as many as the bounds allow, at least one.
///
/// # Errors
/// When Postgres is away. What Postgres cannot read is told of the row alone.
pub(super) async fn read_first(pool: &Pool, rows: &[Row]) -> Result<Vec<ReadRow>, sqlx::Error> {
    let mut count = fitting(rows);
    loop {
        let some = rows.get(..count).unwrap_or(rows);
        match read(pool, some).await {
            Ok(read) => return Ok(read),
            Err(error) if !is_of_data(&error) => return Err(error),
            // One of them is broken: fewer are read until it stands alone.
            Err(_broken) if count > 1 => count /= 2,
            Err(_broken) => return read_one_by_one(pool, some).await,
        }
    }
}

/// The events of these keys, all of which can be read.
#[cfg(test)]
pub(super) async fn events_of(pool: &Pool, conversations: &[Uuid], seqs: &[i64]) -> Vec<Outgoing> {
    let keys: Vec<_> = conversations
        .iter()
        .copied()
        .zip(seqs.iter().copied())
        .collect();
    let read = read_keys(pool, &keys, keys.len()).await.unwrap();
    let events = read.into_iter().map(|read| match read {
        Read::Event(event) => *event,
        Read::Missing | Read::Unreadable => panic!("an event cannot be read"),
    });
    events.collect()
}

/// How many of the rows have so few events that they are read at once.
fn fitting(rows: &[Row]) -> usize {
    let mut events = 0;
    let fit = rows.iter().take_while(|row| {
        events += row.seqs.len();
        events <= MAX_EVENTS
    });
    fit.count().max(1)
}

/// Whether what is stored is at fault, and not the way to it: data exceptions, corrupted data, and values that are none of ours.
fn is_of_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code();
            code.is_some_and(|code| code.starts_with("22") || code.starts_with("XX"))
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

async fn read(pool: &Pool, rows: &[Row]) -> Result<Vec<ReadRow>, sqlx::Error> {
    let keys: Vec<_> = rows.iter().flat_map(Row::keys).collect();
    let first = rows.first().map_or(0, |row| row.keys().len());
    let mut read = read_keys(pool, &keys, first).await?.into_iter();
    let mut whole = Vec::with_capacity(rows.len());
    for row in rows {
        if read.len() < row.keys().len() {
            break;
        }
        whole.push(ReadRow::of(row, row.keys().zip(read.by_ref())));
    }
    Ok(whole)
}

/// Reads the events of rows that cannot be read together, each in a statement of its own.
async fn read_one_by_one(pool: &Pool, rows: &[Row]) -> Result<Vec<ReadRow>, sqlx::Error> {
    let mut all = Vec::new();
    for row in rows {
        let mut read = Vec::new();
        for key in row.keys() {
            match read_keys(pool, &[key], 1).await {
                Ok(one) => read.extend(one),
                Err(error) if is_of_data(&error) => read.push(Read::Unreadable),
                Err(error) => return Err(error),
            }
        }
        all.push(ReadRow::of(row, row.keys().zip(read)));
    }
    Ok(all)
}

impl ReadRow {
    fn of(row: &Row, read: impl Iterator<Item = ((Uuid, i64), Read)>) -> Self {
        let mut of = Self {
            row: row.clone(),
            events: Vec::new(),
            missing: Vec::new(),
            unreadable: Vec::new(),
        };
        for (key, read) in read {
            match read {
                Read::Event(event) => of.events.push(*event),
                Read::Missing => of.missing.push(key),
                Read::Unreadable => of.unreadable.push(key),
            }
        }
        of
    }
}

/// Reads the first of these events, as many as fit in so many bytes, at least `first`: an edit with the message as that is by now.
async fn read_keys(
    pool: &Pool,
    keys: &[(Uuid, i64)],
    first: usize,
) -> Result<Vec<Read>, sqlx::Error> {
    let text = format!(
        "select r.* from (select k.n, c.tenant, e.conversation_id, {EVENT_COLUMNS}, \
            sum(coalesce(octet_length(e.payload), 0) + coalesce(octet_length(t.target_payload), 0)) \
                over (order by k.n rows unbounded preceding) as bytes \
         from unnest($1::uuid[], $2::bigint[]) with ordinality as k(conversation, seq, n) \
         left join lateral (select e.* from events e where e.conversation_id = k.conversation and e.seq = k.seq limit 1) e on true \
         left join lateral (select c.tenant from conversations c where c.id = e.conversation_id limit 1) c on true \
         {EVENT_TARGET}) r where r.bytes <= $3 or r.n <= $4 order by r.n"
    );
    let (conversations, seqs): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let rows = on(pool, async |connection| {
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(conversations)
            .bind(seqs)
            .bind(MAX_BYTES)
            .bind(i64::try_from(first).unwrap_or(i64::MAX))
            .fetch_all(connection)
            .await
    })
    .await?;
    rows.iter().map(event).collect()
}

fn event(row: &PgRow) -> Result<Read, sqlx::Error> {
    let conversation: Option<Uuid> = row.try_get("conversation_id")?;
    let tenant: Option<String> = row.try_get("tenant")?;
    let (Some(conversation), Some(tenant)) = (conversation, tenant) else {
        return Ok(Read::Missing);
    };
    let event = EventRow::from_row(row)?;
    Ok(encode(conversation, &tenant, &event)
        .map_or(Read::Unreadable, |event| Read::Event(Box::new(event))))
}

fn encode(conversation: Uuid, tenant: &str, row: &EventRow) -> Option<Outgoing> {
    let tenant: TenantId = tenant.parse().ok()?;
    let actor: UserId = row.actor.parse().ok()?;
    let entry = entry_of(conversation, row, &actor)?;
    Some(outgoing(&tenant, &entry))
}
