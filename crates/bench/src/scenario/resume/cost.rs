//! What a resume costs beside processors' time: questions to workers, operations of the bucket, statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::task::JoinSet;
use tracing::warn;

use crate::Error;
use crate::output::row;
use crate::processes;
use crate::stack::{Places, Servers, Stack};

/// How long a page of metrics, or a stop of the database, may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Subjects by which records are read, of any replica and of the leader, and written.
const READ_SUBJECTS: [&str; 2] = [
    "$JS.API.DIRECT.GET.KV_confab_sessions.>",
    "$JS.API.STREAM.MSG.GET.KV_confab_sessions",
];
const WRITE_SUBJECT: &str = "$KV.confab_sessions.>";

/// What a resume costs.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    /// Questions for memberships, each one statement.
    pub(crate) memberships: f64,
    /// Questions for ranges of events, each one statement.
    pub(crate) ranges: f64,
    /// Records read in the bucket.
    pub(crate) reads: f64,
    /// Records written there.
    pub(crate) writes: f64,
    /// Time that Postgres took for statements, in microseconds, waiting for a processor included.
    pub(crate) statements: Option<f64>,
}

impl Cost {
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let questions = format!(
            "{:.3} for memberships, {:.3} for events",
            self.memberships, self.ranges
        );
        let records = format!("{:.2} read, {:.2} written", self.reads, self.writes);
        let mut rows = vec![
            row("questions to workers for a resume", questions),
            row("records for a resume", records),
        ];
        rows.extend(self.statements.map(|micros| {
            row(
                "Postgres' statements for a resume",
                format!("{micros:.0} us"),
            )
        }));
        rows
    }
}

/// Servers whose database takes note of its statements, where it has what does that.
pub(super) async fn observed(places: &Places) -> Result<Servers, Error> {
    let mut servers = Servers::start(places).await?;
    let wanted = "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'";
    let available =
        "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'";
    if servers.postgres.sql("postgres", available).await?.trim() == "1" {
        servers.postgres.sql("postgres", wanted).await?;
        servers.postgres.stop(STOP_TIMEOUT).await?;
        servers.postgres.up().await?;
        let extension = "CREATE EXTENSION pg_stat_statements";
        servers.postgres.sql("confab", extension).await?;
    } else {
        warn!("the database has no pg_stat_statements: the time of statements is not known");
    }
    Ok(servers)
}

/// Bytes that the last gateway holds of its own.
pub(super) fn memory_of_last(stack: &Stack) -> f64 {
    let last = stack.gateways.last();
    last.map_or(0.0, |gateway| {
        processes::memory(gateway.process().id()) as f64
    })
}

/// Counts from when it begins.
pub(super) struct Counting {
    reads: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    memberships: f64,
    ranges: f64,
    _listening: JoinSet<()>,
}

impl Counting {
    pub(super) async fn begin(stack: &Stack) -> Result<Self, Error> {
        let (reads, writes) = (Arc::default(), Arc::default());
        let mut listening = JoinSet::new();
        let nats = async_nats::connect(stack.servers.nats.url()).await;
        let nats = nats.map_err(|error| Error::Failed(format!("connect to NATS: {error}")))?;
        for (subject, count) in READ_SUBJECTS
            .map(|subject| (subject, &reads))
            .into_iter()
            .chain([(WRITE_SUBJECT, &writes)])
        {
            let heard = nats.subscribe(subject).await;
            let heard = heard.map_err(|error| Error::Failed(format!("listen: {error}")))?;
            listening.spawn(counted(heard, Arc::clone(count)));
        }
        let flushed = nats.flush().await;
        flushed.map_err(|error| Error::Failed(format!("reach NATS: {error}")))?;
        // Where nothing takes note of statements there is nothing to reset.
        let forget = "SELECT pg_stat_statements_reset()";
        let _absent = stack.servers.postgres.sql("confab", forget).await.is_err();
        let (memberships, ranges) = questions(stack).await?;
        Ok(Self {
            reads,
            writes,
            memberships,
            ranges,
            _listening: listening,
        })
    }

    /// What each of `count` resumes took.
    pub(super) async fn end(self, stack: &Stack, count: f64) -> Result<Cost, Error> {
        let (memberships, ranges) = questions(stack).await?;
        let took = "SELECT sum(total_exec_time) FROM pg_stat_statements \
                    WHERE query NOT LIKE '%pg_stat_statements%'";
        let millis = stack.servers.postgres.sql("confab", took).await.ok();
        let millis = millis.and_then(|text| text.trim().parse::<f64>().ok());
        let heard = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        Ok(Cost {
            memberships: (memberships - self.memberships) / count,
            ranges: (ranges - self.ranges) / count,
            reads: heard(&self.reads) / count,
            writes: heard(&self.writes) / count,
            statements: millis.map(|millis| millis * 1e3 / count),
        })
    }
}

async fn counted(mut heard: Subscriber, count: Arc<AtomicU64>) {
    while let Some(Message { .. }) = heard.next().await {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Questions that the workers have answered: for memberships, and for ranges of events.
async fn questions(stack: &Stack) -> Result<(f64, f64), Error> {
    let (mut memberships, mut ranges) = (0.0, 0.0);
    for worker in &stack.workers {
        let (_, page) = confab_stack::get(worker.port(), "/metrics", PAGE_TIMEOUT).await?;
        memberships += sum(
            &page,
            "confab_worker_queries_total",
            "query=\"memberships\"",
        );
        ranges += sum(
            &page,
            "confab_worker_queries_total",
            "query=\"read_ranges\"",
        );
    }
    Ok((memberships, ranges))
}

/// The sum of a metric's samples with a label.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with('{') && rest.contains(label));
    let values = samples.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_name_are_summed_over_labels() {
        let page = "a_total{q=\"x\",r=\"1\"} 2\na_total{q=\"x\",r=\"2\"} 3\na_total{q=\"y\"} 7\na_total_b{q=\"x\"} 9\n";
        assert_eq!(sum(page, "a_total", "q=\"x\""), 5.0);
    }
}
