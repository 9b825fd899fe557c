//! Publishes what was committed here, as soon as it is committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_bus::{Bus, Outgoing};
use confab_protocol::chain::chain;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::marking::write_marks;
use super::publishing::{acknowledged, send};
use super::{Committed, Mark, Standing};
use crate::database::Pool;
use crate::metrics::Metrics;

/// Commits whose events wait to be published, and their bytes; what does not fit is left to the relay.
const MAX_COMMITS: usize = 1024;
const MAX_BYTES: usize = 64 << 20;
/// What an event takes beside its JSON, about.
const EVENT_OVERHEAD_BYTES: usize = 256;
/// Publishes of commits at once, and of events: each waits for an acknowledgement, of which the connection has a bounded number.
const MAX_PUBLISHING: usize = 64;
const MAX_PUBLISHING_EVENTS: usize = 4096;
/// How long marks wait for others: well below what the relay takes for lingering.
const MARK_PERIOD: Duration = Duration::from_millis(100);
/// Marks that wait to be written; what does not fit is published once more by the relay.
const MAX_MARKS: usize = 8192;

/// Where committed events go. Never in a sender's way: what it cannot take, the relay finds.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    commits: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// A commit that waits to be published, and its share of the queue's bytes until all of it is acknowledged.
#[derive(Debug)]
pub(crate) struct Queued {
    committed: Committed,
    share: Share,
}

#[derive(Debug)]
struct Share {
    bytes: usize,
    of: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.of.fetch_sub(self.bytes, Ordering::AcqRel);
        self.metrics.queued(before.saturating_sub(self.bytes));
    }
}

impl Publisher {
    pub(crate) fn new(metrics: Metrics) -> (Self, mpsc::Receiver<Queued>) {
        let (commits, receiver) = mpsc::channel(MAX_COMMITS);
        let publisher = Self {
            commits,
            bytes: Arc::default(),
            metrics,
        };
        (publisher, receiver)
    }

    pub(crate) fn publish(&self, committed: Committed) {
        let queued = self
            .share(size(&committed.events))
            .map(|share| Queued { committed, share });
        if queued.is_none_or(|queued| self.commits.try_send(queued).is_err()) {
            self.metrics.left_to_relay();
            debug!("a commit is left to the relay");
        }
    }

    /// So many of the queue's bytes; none where it has not so many.
    fn share(&self, bytes: usize) -> Option<Share> {
        let taken = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let share = Share {
            bytes,
            of: Arc::clone(&self.bytes),
            metrics: self.metrics.clone(),
        };
        self.metrics.queued(taken);
        (taken <= MAX_BYTES).then_some(share)
    }
}

fn size(events: &[Outgoing]) -> usize {
    let sizes = events.iter();
    sizes
        .map(|event| event.json.len() + EVENT_OVERHEAD_BYTES)
        .sum()
}

/// Publishes what was committed, in the order of the commits, and marks it, until `stop` and until nothing waits.
///
/// Marks are written together and on the side: a transaction for each would cost Postgres as much as the commit that it marks, and
/// nothing waits for them but the relay, which takes a commit for lost after a second. They are a task of their own: a transaction
/// that stood still while NATS takes nothing would keep its rows locked.
pub(super) async fn run(
    bus: Bus,
    pool: Pool,
    mut committed: mpsc::Receiver<Queued>,
    standing: Standing,
    stop: CancellationToken,
) {
    let mut publishing = FuturesUnordered::new();
    let mut events_on_the_way = 0;
    let mut writing = JoinSet::new();
    let mut marks = Marks::default();
    let mut stopped = false;
    loop {
        let nothing_comes = stopped && committed.is_empty();
        let has_room =
            publishing.len() < MAX_PUBLISHING && events_on_the_way < MAX_PUBLISHING_EVENTS;
        let due = marks.due.filter(|_| writing.is_empty());
        tokio::select! {
            biased;
            Some((mark, events)) = publishing.next() => {
                events_on_the_way -= events;
                marks.extend(mark);
            }
            Some(written) = writing.join_next() => {
                if let Err(error) = written {
                    error!(error = %chain(&error), "marking commits died");
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (bus, pool, standing) = (bus.clone(), pool.clone(), standing.clone());
                let marks = marks.take();
                writing.spawn(async move { write_marks(&bus, &pool, marks, &standing).await });
            }
            next = committed.recv(), if has_room && !nothing_comes => match next {
                Some(Queued { committed: next, share }) => {
                    if let Ok(sent) = send(&bus, &next.events, &standing).await {
                        let (events, standing) = (next.events.len(), &standing);
                        events_on_the_way += events;
                        publishing.push(async move {
                            let mark = acknowledged(next.row, sent, standing).await;
                            drop(share);
                            (mark.ok().flatten(), events)
                        });
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
            write_marks(&bus, &pool, marks.take(), &standing).await;
            return;
        }
    }
}

/// Marks that are to be written.
#[derive(Debug, Default)]
struct Marks {
    waiting: VecDeque<Mark>,
    /// When those that wait are to be written.
    due: Option<Instant>,
}

impl Marks {
    fn extend(&mut self, mark: Option<Mark>) {
        if let Some(mark) = mark
            && self.waiting.len() < MAX_MARKS
        {
            self.waiting.push_back(mark);
            self.due.get_or_insert_with(|| Instant::now() + MARK_PERIOD);
        }
    }

    fn take(&mut self) -> Vec<Mark> {
        self.due = None;
        std::mem::take(&mut self.waiting).into()
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::event::EventType;
    use confab_protocol::ids::{ConversationId, EventId};
    use prometheus_client::registry::Registry;
    use uuid::Uuid;

    use super::*;

    fn commit(row: i64, bytes: usize) -> Committed {
        let event = Outgoing {
            tenant: "default".parse().unwrap(),
            conversation: ConversationId(Uuid::now_v7()),
            seq: 1,
            id: EventId(Uuid::now_v7()),
            r#type: EventType::MessageCreated,
            target_seq: None,
            json: vec![b' '; bytes].into(),
        };
        let events = vec![event];
        Committed { row, events }
    }

    #[test]
    fn queue_full_of_bytes_leaves_commits_to_relay() {
        let metrics = Metrics::new(&mut Registry::default());
        let (publisher, mut commits) = Publisher::new(metrics);
        let size = 1 << 20;
        for row in 0..100 {
            publisher.publish(commit(row, size));
        }
        let mut taken = Vec::new();
        while let Ok(queued) = commits.try_recv() {
            taken.push(queued);
        }
        assert_eq!(taken.len(), MAX_BYTES / (size + EVENT_OVERHEAD_BYTES));
        // Published, they make room, and none is lost but what did not fit.
        taken.clear();
        assert_eq!(publisher.bytes.load(Ordering::Acquire), 0);
        publisher.publish(commit(100, size));
        assert_eq!(commits.try_recv().unwrap().committed.row, 100);
    }
}
