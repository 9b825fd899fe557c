//! From the commit into the stream: published at once where that works, by a relay where it does not, and again where the
//! stream lost what it had acknowledged.

use std::sync::Arc;
use std::time::Duration;

use confab_bus::{Bus, BusError, Link, Outgoing};
use confab_protocol::event::LogEntry;
use confab_protocol::ids::{EventId, TenantId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::database::{Pool, READ_COMMITTED, bounded};

pub(crate) mod relay;
pub(crate) mod verify;

/// Commits whose events wait to be published; what does not fit is left to the relay.
const WAITING: usize = 1024;
/// Publishes of commits at once.
const PUBLISHING: usize = 64;
/// How long marks wait for others: well below what the relay takes for lingering.
const MARK_EVERY: Duration = Duration::from_millis(100);

/// An outbox row and the events of its commit.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) row: i64,
    pub(crate) events: Vec<Outgoing>,
}

/// The event of a log entry, on its way into the stream.
pub(crate) fn outgoing(tenant: &TenantId, entry: &LogEntry<'_>) -> Outgoing {
    Outgoing {
        tenant: tenant.clone(),
        conversation: entry.conversation,
        seq: entry.seq,
        id: entry.id,
        r#type: entry.event_type,
        target_seq: entry.target_seq,
        json: entry.encode().into(),
    }
}

/// Where committed events go. Never in a sender's way: what it cannot take, the relay finds.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(mpsc::Sender<Committed>);

impl Publisher {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Committed>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    pub(crate) fn publish(&self, committed: Committed) {
        if self.0.try_send(committed).is_err() {
            debug!("a commit is left to the relay");
        }
    }
}

/// A commit all of whose events JetStream has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) row: i64,
    /// The stream as it was when its events were handed over.
    pub(crate) stream: Compared,
    /// The highest sequence of any of its events, and that event.
    pub(crate) stream_seq: u64,
    pub(crate) event: EventId,
}

/// A stream that was found to have what is marked as published into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compared {
    /// When it was made.
    pub(crate) created: OffsetDateTime,
    /// The connection on which it was compared.
    pub(crate) epoch: u64,
}

/// Whether commits may be marked as published now, and forgotten.
///
/// A server that comes back may have lost what it had acknowledged. New events take the sequences of those, so that marks made before
/// the comparison would hide what lies below them: until then there are none, and the relay publishes once more.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    link: watch::Receiver<Link>,
    compared: watch::Receiver<Option<Compared>>,
}

impl Standing {
    /// Told by who compares.
    pub(crate) fn new(bus: &Bus) -> (watch::Sender<Option<Compared>>, Self) {
        let (sender, compared) = watch::channel(None);
        let link = bus.connection();
        (sender, Self { link, compared })
    }

    /// The stream, where it was compared on the connection that is.
    pub(crate) fn now(&self) -> Option<Compared> {
        let link = *self.link.borrow();
        let compared = *self.compared.borrow();
        compared.filter(|compared| link.connected && link.epoch == compared.epoch)
    }
}

/// Publishes what was committed, in the order of the commits, and marks it, until `stop` and until nothing waits.
///
/// Marks are written together and on the side: a transaction for each would cost Postgres as much as the commit that it marks, and
/// nothing waits for them but the relay, which takes a commit for lost after a second. They are a task of their own: a transaction
/// that stood still while NATS takes nothing would keep its rows locked.
pub(crate) async fn run(
    bus: Bus,
    pool: Pool,
    mut committed: mpsc::Receiver<Committed>,
    standing: Standing,
    stop: CancellationToken,
) {
    let bus = Arc::new(bus);
    let mut publishing = FuturesUnordered::new();
    let mut writing = JoinSet::new();
    let mut marks = Marks::default();
    let mut stopped = false;
    loop {
        let nothing_comes = stopped && committed.is_empty();
        let takes = publishing.len() < PUBLISHING && !nothing_comes;
        let due = marks.due.filter(|_| writing.is_empty());
        tokio::select! {
            biased;
            Some(mark) = publishing.next() => marks.extend(mark),
            Some(written) = writing.join_next() => {
                if let Err(error) = written {
                    error!(%error, "marking commits died");
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (pool, standing, marks) = (pool.clone(), standing.clone(), marks.take());
                writing.spawn(async move { write_marks(&pool, marks, &standing).await });
            }
            next = committed.recv(), if takes => match next {
                Some(next) => {
                    let stream = standing.now();
                    if let Some(sent) = send(&bus, &next.events).await {
                        publishing.push(acknowledged(next.row, sent, stream));
                    }
                }
                None => stopped = true,
            },
            () = stop.cancelled(), if !stopped => {
                committed.close();
                stopped = true;
            }
        }
        if stopped && publishing.is_empty() && committed.is_empty() {
            while writing.join_next().await.is_some() {}
            write_marks(&pool, marks.take(), &standing).await;
            return;
        }
    }
}

/// Marks that are to be written.
#[derive(Debug, Default)]
struct Marks {
    waiting: Vec<Mark>,
    /// When those that wait are to be written.
    due: Option<Instant>,
}

impl Marks {
    /// What is too much is published once more by the relay.
    fn extend(&mut self, mark: Option<Mark>) {
        if let Some(mark) = mark
            && self.waiting.len() < WAITING
        {
            self.waiting.push(mark);
            self.due.get_or_insert_with(|| Instant::now() + MARK_EVERY);
        }
    }

    fn take(&mut self) -> Vec<Mark> {
        self.due = None;
        std::mem::take(&mut self.waiting)
    }
}

/// Events that were handed to NATS, each with its acknowledgement to come.
type Sent = Vec<(EventId, confab_bus::Publishing)>;

/// Hands events to NATS, in their order; none where it does not take them.
pub(crate) async fn send(bus: &Bus, events: &[Outgoing]) -> Option<Sent> {
    let mut sent = Vec::with_capacity(events.len());
    for event in events {
        match tokio::time::timeout(Duration::from_secs(5), bus.publish(event)).await {
            Ok(Ok(publishing)) => sent.push((event.id, publishing)),
            Ok(Err(error)) => {
                debug!(%error, "events are left to the relay");
                return None;
            }
            Err(_stuck) => return None,
        }
    }
    Some(sent)
}

/// Waits until JetStream has acknowledged all events of a commit; gives its mark, where the stream that they were handed to is known.
pub(crate) async fn acknowledged(row: i64, sent: Sent, stream: Option<Compared>) -> Option<Mark> {
    let mut highest: Option<(u64, EventId)> = None;
    for (event, publishing) in sent {
        match publishing.ack().await {
            Ok(stream_seq) => highest = highest.max(Some((stream_seq, event))),
            Err(error) => {
                debug!(%error, "an event was not acknowledged and is left to the relay");
                return None;
            }
        }
    }
    let (stream_seq, event) = highest?;
    Some(Mark {
        row,
        stream: stream?,
        stream_seq,
        event,
    })
}

/// Marks commits as published. What cannot be marked is published once more by the relay.
pub(crate) async fn write_marks(pool: &Pool, mut marks: Vec<Mark>, standing: &Standing) {
    let Some(stream) = standing.now() else {
        return;
    };
    marks.retain(|mark| mark.stream == stream);
    if marks.is_empty() {
        return;
    }
    let written = async {
        let mut tx = pool.begin(READ_COMMITTED).await?;
        mark(&mut tx, &marks, stream.created).await?;
        // Postgres may have been slow: what was compared meanwhile, on the next connection, did not know of these marks.
        if standing.now() == Some(stream) {
            tx.commit().await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = bounded(written).await {
        debug!(%error, "commits could not be marked as published");
    }
}

async fn mark(
    tx: &mut sqlx::PgConnection,
    marks: &[Mark],
    created: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    // A mark that is lost costs a second publishing, which JetStream recognizes: it need not wait for the disk.
    sqlx::query("set local synchronous_commit = off")
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "update outbox o set published_at = clock_timestamp(), stream_created = $4, stream_seq = m.seq, \
            stream_event_id = m.event \
         from unnest($1::bigint[], $2::bigint[], $3::uuid[]) as m(row, seq, event) where o.id = m.row",
    )
    .bind(marks.iter().map(|mark| mark.row).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.stream_seq.cast_signed()).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.event.0).collect::<Vec<_>>())
    .bind(created)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Why the outbox could not be worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboxError {
    #[error("Postgres")]
    Postgres(#[from] sqlx::Error),
    #[error("NATS")]
    Bus(#[from] BusError),
    #[error("what is stored cannot be read")]
    Stored,
    #[error("another worker looks for what the stream has lost")]
    Busy,
}

#[cfg(test)]
mod tests;
