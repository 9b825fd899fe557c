//! Publishes what lingers: commits whose worker died, or whose events JetStream did not take. One in every worker; none
//! waits for another (SKIP LOCKED).

use std::time::Duration;

use confab_bus::{Bus, Outgoing};
use confab_protocol::event::LogEntry;
use confab_protocol::ids::TenantId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use super::{OutboxError, Standing, acknowledged, outgoing, send};
use crate::database::{Pool, READ_COMMITTED};
use crate::metrics::Metrics;
use crate::reads::{EVENT_COLUMNS, EVENT_TARGET, EventRow, entry_of};

const PERIOD: Duration = Duration::from_millis(250);
/// Commits taken at once.
const ROWS: i64 = 20;
/// How often what is long published, and creation keys that expired, are deleted.
const SWEEP_EVERY: u32 = 120;

/// Relays until `stop`.
pub(crate) async fn run(
    bus: Bus,
    pool: Pool,
    standing: Standing,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        count = count.wrapping_add(1);
        let relay = async {
            while bus.is_connected() && relay(&bus, &pool, &standing, &metrics).await? {}
            if count.is_multiple_of(SWEEP_EVERY) {
                sweep(&pool, &standing).await?;
            }
            Ok::<_, OutboxError>(())
        };
        if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(relay)).await {
            debug!(%error, "the relay tries again");
        }
    }
}

/// Publishes some of what lingers; says whether there may be more.
pub(super) async fn relay(
    bus: &Bus,
    pool: &Pool,
    standing: &Standing,
    metrics: &Metrics,
) -> Result<bool, OutboxError> {
    let Some(stream) = standing.now() else {
        return Ok(false);
    };
    let mut tx = pool.begin(READ_COMMITTED).await?;
    let rows: Vec<(i64, Vec<Uuid>, Vec<i64>)> = sqlx::query_as(
        "select id, conversation_ids, seqs from outbox \
         where published_at is null and created_at < clock_timestamp() - interval '1 second' \
         order by created_at limit $1 for update skip locked",
    )
    .bind(ROWS)
    .fetch_all(&mut *tx)
    .await?;
    metrics.lingering(rows.len());
    let count = rows.len();
    for (row, conversations, seqs) in rows {
        let events = read(&mut tx, &conversations, &seqs).await?;
        let Some(sent) = send(bus, &events).await else {
            return Ok(false);
        };
        let Some(mark) = acknowledged(row, sent, Some(stream)).await else {
            return Ok(false);
        };
        sqlx::query(
            "update outbox set published_at = clock_timestamp(), stream_created = $2, stream_seq = $3, \
             stream_event_id = $4 where id = $1",
        )
        .bind(row)
        .bind(stream.created)
        .bind(mark.stream_seq.cast_signed())
        .bind(mark.event.0)
        .execute(&mut *tx)
        .await?;
        metrics.relayed(events.len());
        info!(events = events.len(), "the relay published what lingered");
    }
    if standing.now() != Some(stream) {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(i64::try_from(count).is_ok_and(|count| count == ROWS))
}

/// The events of an outbox row, as they are to be published now: an edit with the message as that is by now.
pub(crate) async fn read(
    tx: &mut sqlx::PgConnection,
    conversations: &[Uuid],
    seqs: &[i64],
) -> Result<Vec<Outgoing>, OutboxError> {
    let text = format!(
        "select c.tenant, e.conversation_id, {EVENT_COLUMNS} \
         from unnest($1::uuid[], $2::bigint[]) with ordinality as k(conversation, seq, n) \
         join events e on e.conversation_id = k.conversation and e.seq = k.seq \
         join conversations c on c.id = e.conversation_id {EVENT_TARGET} order by k.n"
    );
    let rows: Vec<RelayRow> = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(conversations)
        .bind(seqs)
        .fetch_all(tx)
        .await?;
    rows.iter()
        .map(|row| {
            let tenant: TenantId = row.tenant.parse().map_err(|_bad| OutboxError::Stored)?;
            let actor = row
                .event
                .actor
                .parse()
                .map_err(|_bad| OutboxError::Stored)?;
            let entry: LogEntry<'_> =
                entry_of(row.conversation_id, &row.event, &actor).ok_or(OutboxError::Stored)?;
            Ok(outgoing(&tenant, &entry))
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct RelayRow {
    tenant: String,
    conversation_id: Uuid,
    #[sqlx(flatten)]
    event: EventRow,
}

/// Deletes what was published more than five minutes ago, well past JetStream's sync interval of two, and creation keys
/// and revocations that expired.
///
/// While NATS is away, and until its stream was compared, what was published is kept: it may be lost.
pub(super) async fn sweep(pool: &Pool, standing: &Standing) -> Result<(), OutboxError> {
    let mut connection = pool.acquire().await?;
    if standing.now().is_some() {
        sqlx::query(
            "delete from outbox where id in (select id from outbox where published_at < statement_timestamp() - interval '5 minutes' \
             order by published_at limit 10000 for update skip locked)",
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "delete from creation_keys where (tenant, user_id, key) in (select tenant, user_id, key from creation_keys \
         where expires_at < clock_timestamp() limit 10000 for update skip locked)",
    )
    .execute(&mut *connection)
    .await?;
    crate::revocations::sweep(&mut connection).await?;
    connection.release();
    Ok(())
}
