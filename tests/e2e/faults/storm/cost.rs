//! The cost of a resume storm: worker and bucket requests, processor time and memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Message;
use futures_util::stream::select;
use futures_util::{Stream, StreamExt as _};
use tokio::task::JoinSet;

use super::super::PAGE_TIMEOUT;
use crate::support::Cluster;

/// The kernel's unit of processor time, in seconds.
const CPU_TICK_SECONDS: f64 = 0.01;
/// Subjects by which records are read, of any replica and of the leader, and written.
const READ_SUBJECTS: [&str; 2] = [
    "$JS.API.DIRECT.GET.KV_confab_sessions.>",
    "$JS.API.STREAM.MSG.GET.KV_confab_sessions",
];
const WRITE_SUBJECT: &str = "$KV.confab_sessions.>";

/// Operations of the bucket of records, heard as they pass by.
pub(super) struct Operations {
    reads: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    _listening: JoinSet<()>,
}

impl Operations {
    /// Counts from now on.
    pub(super) async fn count(cluster: &Cluster) -> Self {
        let client = async_nats::connect(cluster.nats.url()).await.unwrap();
        let replica = client.subscribe(READ_SUBJECTS[0]).await.unwrap();
        let leader = client.subscribe(READ_SUBJECTS[1]).await.unwrap();
        let written = client.subscribe(WRITE_SUBJECT).await.unwrap();
        client.flush().await.unwrap();
        let (reads, writes) = (Arc::default(), Arc::default());
        let mut listening = JoinSet::new();
        listening.spawn(counted(select(replica, leader), Arc::clone(&reads)));
        listening.spawn(counted(written, Arc::clone(&writes)));
        Self {
            reads,
            writes,
            _listening: listening,
        }
    }
}

async fn counted(mut heard: impl Stream<Item = Message> + Unpin, count: Arc<AtomicU64>) {
    while heard.next().await.is_some() {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was spent by now.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    /// Questions for memberships, each one statement in Postgres.
    heads: f64,
    /// Questions for ranges of events, likewise.
    ranges: f64,
    reads: f64,
    writes: f64,
    gateway: f64,
    workers: f64,
    nats: f64,
    postgres: f64,
    load: f64,
    /// Of the gateway, in MiB.
    memory: f64,
}

impl Cost {
    /// What the second gateway and all behind it have spent.
    pub(super) async fn of(cluster: &mut Cluster, operations: &Operations) -> Self {
        let gateway = cluster.gateways[1].process().id();
        let (mut workers, mut heads, mut ranges) = (0.0, 0.0, 0.0);
        for worker in &cluster.workers {
            workers += processor(worker.process().id());
            let page = page(worker.port()).await;
            heads += sum(
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
        let nats = cluster.nats.process().unwrap().id();
        Self {
            heads,
            ranges,
            reads: operations.reads.load(Ordering::Relaxed) as f64,
            writes: operations.writes.load(Ordering::Relaxed) as f64,
            gateway: processor(gateway),
            workers,
            nats: processor(nats),
            postgres: postgres(cluster).await,
            load: processor(std::process::id()),
            memory: memory(gateway),
        }
    }

    pub(super) fn since(self, before: Self, resumes: usize) -> Spent {
        Spent {
            before,
            after: self,
            resumes: resumes as f64,
        }
    }
}

/// What many resumes cost.
pub(super) struct Spent {
    before: Cost,
    after: Cost,
    resumes: f64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        let each = |of: fn(&Cost) -> f64| (of(after) - of(before)) / self.resumes;
        let micros = |of: fn(&Cost) -> f64| each(of) * 1e6;
        write!(
            f,
            "a resume: {:.3} head queries, {:.3} range queries, {:.2} KV reads, {:.2} KV writes; \
             processor us a resume: gateway {:.0}, workers {:.0}, nats {:.0}, postgres {:.0}, load {:.0}; \
             gateway {:.0} MiB before, {:.0} MiB after",
            each(|c| c.heads),
            each(|c| c.ranges),
            each(|c| c.reads),
            each(|c| c.writes),
            micros(|c| c.gateway),
            micros(|c| c.workers),
            micros(|c| c.nats),
            micros(|c| c.postgres),
            micros(|c| c.load),
            before.memory,
            after.memory,
        )
    }
}

async fn page(port: u16) -> String {
    let page = confab_stack::get(port, "/metrics", PAGE_TIMEOUT).await;
    page.unwrap().1
}

/// The sum of a metric's samples with a label.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with('{') && rest.contains(label));
    let values = samples.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Seconds of processor time that a process has used; 0 of one that is gone.
fn processor(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, stand the state and ten numbers before the two that are wanted.
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    let ticks = behind.split(' ').skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        * CPU_TICK_SECONDS
}

/// Of all that serve the cluster's database.
async fn postgres(cluster: &Cluster) -> f64 {
    let pids: Vec<i32> =
        sqlx::query_scalar("select pid from pg_stat_activity where datname = current_database()")
            .fetch_all(&cluster.store)
            .await
            .unwrap();
    pids.into_iter()
        .map(|pid| processor(pid.cast_unsigned()))
        .sum()
}

fn memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() / 1024.0
}
