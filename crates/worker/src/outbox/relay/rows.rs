//! Rows on their way into the stream, and what becomes of each.

use std::collections::HashMap;
use std::time::Duration;

use confab_bus::Bus;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tracing::{error, info};
use uuid::Uuid;

use super::backlog;
use super::reading::ReadRow;
use crate::database::Pool;
use crate::metrics::Metrics;
use crate::outbox::marking::write_marks;
use crate::outbox::publishing::{Sent, Unpublished, acknowledged, send};
use crate::outbox::{OutboxError, Standing};

/// How long the acknowledgements of a run of rows are waited for.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// So often a row alone may fail among others that do not, before it is stepped over.
const MAX_FAILURES: u32 = 3;
/// Rows whose failures are counted.
const MAX_COUNTED: usize = 10_000;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowEnd {
    /// All of its events that there are were published, and it is marked.
    Published,
    /// None of its events is there any more.
    Gone,
    /// An event of it cannot be read.
    Unreadable,
    /// An event of it is larger than NATS takes.
    Refused,
    /// It was not acknowledged, or not marked.
    Away,
}

impl RowEnd {
    /// Whether the row itself is at fault.
    pub(super) const fn is_own(self) -> bool {
        matches!(self, Self::Unreadable | Self::Refused)
    }
}

/// A run of rows whose events were handed to NATS.
#[derive(Debug)]
pub(super) struct HandedOver {
    rows: Vec<(ReadRow, Result<Option<Sent>, Unpublished>)>,
    /// Whether NATS took all that it can take.
    pub(super) takes_more: bool,
}

/// A run of rows at its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) rows: Vec<(ReadRow, RowEnd)>,
    /// Events that were published and marked.
    pub(super) relayed: usize,
}

/// Hands the events of rows to NATS, row after row.
pub(super) async fn hand_over(bus: &Bus, standing: &Standing, read: Vec<ReadRow>) -> HandedOver {
    let mut rows = Vec::with_capacity(read.len());
    let mut takes_more = true;
    for row in read {
        let sent = if row.events.is_empty() {
            Ok(None)
        } else if takes_more {
            send(bus, &row.events, standing).await.map(Some)
        } else {
            Err(Unpublished::Away)
        };
        takes_more &= !matches!(sent, Err(Unpublished::Away));
        rows.push((row, sent));
    }
    HandedOver { rows, takes_more }
}

impl HandedOver {
    /// Waits for the acknowledgements, and marks what was acknowledged.
    pub(super) async fn finish(self, bus: &Bus, pool: &Pool, standing: &Standing) -> Ended {
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut waiting = FuturesUnordered::new();
        for (place, (row, sent)) in self.rows.into_iter().enumerate() {
            let end = match sent {
                Ok(None) if row.unreadable.is_empty() => RowEnd::Gone,
                Ok(None) => RowEnd::Unreadable,
                Err(Unpublished::Refused) => RowEnd::Refused,
                Ok(Some(_)) | Err(Unpublished::Away) => RowEnd::Away,
            };
            if let Ok(Some(sent)) = sent {
                let id = row.row.id;
                waiting.push(async move { (place, acknowledged(id, sent, standing).await) });
            }
            rows.push((row, end));
        }
        let mut marks = Vec::with_capacity(rows.len());
        let collecting = async {
            while let Some((place, result)) = waiting.next().await {
                let Some((row, end)) = rows.get_mut(place) else {
                    continue;
                };
                match result {
                    Ok(_) if !row.unreadable.is_empty() => *end = RowEnd::Unreadable,
                    Ok(Some(mark)) => marks.push((place, mark)),
                    Err(Unpublished::Refused) => *end = RowEnd::Refused,
                    Ok(None) | Err(Unpublished::Away) => {}
                }
            }
        };
        let _late = tokio::time::timeout(ACK_TIMEOUT, collecting).await.is_err();
        drop(waiting);
        let to_write = marks.iter().map(|(_, mark)| *mark).collect();
        let mut relayed = 0;
        if write_marks(bus, pool, to_write, standing).await {
            for (place, _) in marks {
                if let Some((row, end)) = rows.get_mut(place) {
                    *end = RowEnd::Published;
                    relayed += row.events.len();
                }
            }
        }
        if relayed > 0 {
            info!(events = relayed, "the relay published what lingered");
        }
        Ended { rows, relayed }
    }
}

/// How often rows failed alone.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<i64, u32>);

impl Failures {
    /// A row failed where others did not; says whether it has done so too often.
    pub(super) fn is_own(&mut self, row: i64) -> bool {
        if self.0.len() >= MAX_COUNTED {
            self.0.clear();
        }
        let count = self.0.entry(row).or_default();
        *count += 1;
        *count >= MAX_FAILURES
    }

    pub(super) fn forget(&mut self, row: i64) {
        self.0.remove(&row);
    }
}

/// Steps over a row that cannot be published, and says so once. Gives whether this was the first time.
pub(super) async fn step_over(
    pool: &Pool,
    row: &ReadRow,
    metrics: &Metrics,
) -> Result<bool, OutboxError> {
    let was_stepped_over = row.row.attempts > 0;
    let is_first = backlog::step_over(pool, &row.row).await? && !was_stepped_over;
    if is_first {
        metrics.unpublishable();
        error!(
            outbox.row = row.row.id,
            events = keys(row.row.keys()),
            unreadable = keys(row.unreadable.iter().copied()),
            missing = keys(row.missing.iter().copied()),
            "a commit cannot be published and is stepped over; it is tried again rarely"
        );
    }
    Ok(is_first)
}

/// Forgets a row that has nothing to publish any more, and says so.
pub(super) async fn forget(
    pool: &Pool,
    row: &ReadRow,
    metrics: &Metrics,
) -> Result<(), OutboxError> {
    if backlog::forget(pool, row.row.id).await? {
        metrics.unpublishable();
        error!(
            outbox.row = row.row.id,
            missing = keys(row.missing.iter().copied()),
            "a commit cannot be published: its events are not in the log"
        );
    }
    Ok(())
}

/// Says which events of a row that was published are not in the log.
pub(super) fn report_missing(row: &ReadRow, metrics: &Metrics) {
    if !row.missing.is_empty() {
        metrics.unpublishable();
        error!(
            outbox.row = row.row.id,
            missing = keys(row.missing.iter().copied()),
            "events of a commit cannot be published: they are not in the log"
        );
    }
}

/// Events as a log line names them.
fn keys(keys: impl Iterator<Item = (Uuid, i64)>) -> String {
    const MAX_NAMED: usize = 20;
    let mut named: Vec<_> = keys
        .map(|(conversation, seq)| format!("{conversation}/{seq}"))
        .take(MAX_NAMED + 1)
        .collect();
    if named.len() > MAX_NAMED {
        named.truncate(MAX_NAMED);
        named.push("…".to_owned());
    }
    named.join(" ")
}
