//! What processes have used: processors' time and memory, as Linux tells under /proc.

use std::fs;

use serde::{Deserialize, Serialize};
use tracing::warn;

/// The kernel's unit of processor time, in seconds.
const CPU_TICK_SECONDS: f64 = 0.01;

/// Seconds of processor time by part of the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// All gateways.
    pub(crate) gateways: f64,
    /// All workers.
    pub(crate) workers: f64,
    /// The NATS server.
    pub(crate) nats: f64,
    /// Postgres: the first process, its helpers, and those that serve connections.
    pub(crate) postgres: f64,
    /// This process: what puts the load.
    pub(crate) load: f64,
}

impl Usage {
    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            gateways: self.gateways - before.gateways,
            workers: self.workers - before.workers,
            nats: self.nats - before.nats,
            postgres: self.postgres - before.postgres,
            load: self.load - before.load,
        }
    }

    /// Microseconds for each of `count`.
    pub(crate) fn micros_each(self, count: f64) -> Self {
        let each = |seconds: f64| seconds * 1e6 / count.max(1.0);
        Self {
            gateways: each(self.gateways),
            workers: each(self.workers),
            nats: each(self.nats),
            postgres: each(self.postgres),
            load: each(self.load),
        }
    }

    /// Of the service, without the load.
    pub(crate) fn service(self) -> f64 {
        self.gateways + self.workers + self.nats + self.postgres
    }
}

/// Every socket of a load takes a descriptor, and systems start processes with few: as many as may be had are taken.
pub(crate) fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// Seconds of processor time that a process has used; 0 of one that is gone.
pub(crate) fn processor(pid: u32) -> f64 {
    times(pid).0
}

/// Of a process and all its children, those included that it has waited for.
pub(crate) fn processor_of_family(pid: u32) -> f64 {
    let (own, waited_for) = times(pid);
    let children = children(pid).into_iter().map(processor_of_family);
    own + waited_for + children.sum::<f64>()
}

/// Of this process.
pub(crate) fn own_processor() -> f64 {
    processor(std::process::id())
}

/// Of the calling thread, more finely than by the kernel's unit.
pub(crate) fn own_thread() -> f64 {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedule.split(' ').next().map(str::parse::<f64>);
    nanos.and_then(Result::ok).unwrap_or_default() / 1e9
}

/// Its own, and that of the children it has waited for.
fn times(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, stand the state and ten numbers before the four that are wanted.
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    let mut ticks = behind
        .split(' ')
        .skip(11)
        .map(|ticks| ticks.parse::<f64>().unwrap_or_default() * CPU_TICK_SECONDS);
    let mut two = || ticks.next().unwrap_or_default() + ticks.next().unwrap_or_default();
    (two(), two())
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Bytes of a process that are in memory and its own: its resident set without what a file backs.
pub(crate) fn memory(pid: u32) -> u64 {
    status(pid, "RssAnon:")
}

/// Bytes of a process that are in memory.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Sockets that a process has open.
pub(crate) fn sockets(pid: u32) -> usize {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    let targets = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.map(|rest| rest.trim().trim_end_matches(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_and_memory_of_this_process_show() {
        let before = own_processor();
        let began = Instant::now();
        let mut held = Vec::new();
        while own_processor() - before < 0.05 {
            held.push(began.elapsed());
            assert!(began.elapsed().as_secs() < 30, "work does not show");
        }
        assert!(!held.is_empty());
        assert_eq!(processor(0), 0.0);
    }

    #[test]
    fn what_this_process_holds_shows() {
        const HELD_BYTES: usize = 64 << 20;
        let pid = std::process::id();
        let (own, in_memory) = (memory(pid), resident(pid));
        let held = std::hint::black_box(vec![1u8; HELD_BYTES]);
        // What other tests give back meanwhile is far from half of it.
        let half = u64::try_from(HELD_BYTES).unwrap() / 2;
        assert!(memory(pid) > own + half && resident(pid) > in_memory + half);
        drop(held);
        let ends = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(sockets(pid) >= 2);
        drop(ends);
        assert_eq!((memory(0), sockets(0)), (0, 0));
    }
}
