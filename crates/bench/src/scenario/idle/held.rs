//! What a process holds for connections, told from how it grows.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::load::Connection;
use crate::output::Progress;
use crate::processes::{memory, resident, sockets};

/// Memory counts as steady when it stayed within [`STEADY_TOLERANCE`] of itself for this many looks, spread evenly.
const STEADY_SAMPLES: usize = 8;
const STEADY_TOLERANCE: f64 = 0.005;
/// How long it may take to be steady: presence is told and records are written behind the last welcome.
const STEADY_TIMEOUT: Duration = Duration::from_secs(90);

/// What a process holds. Its own is what is in memory and no file backs (`RssAnon`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeldMemory {
    /// Bytes of its own for each further connection, behind the first ones: those use what the process had kept free since its start.
    pub(crate) own: f64,
    /// Bytes in memory (`VmRSS`) for each further connection.
    pub(crate) resident: f64,
    /// Bytes of its own above what it held at its start, for each of all connections.
    pub(crate) own_over_all: f64,
    /// All bytes of its own at its start, with the first connections, and with all.
    pub(crate) own_at_start: u64,
    pub(crate) own_with_first: u64,
    pub(crate) own_with_all: u64,
    /// Sockets that it held with all connections: those, and a few of its own.
    pub(crate) sockets: usize,
}

/// What a process holds at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    own: u64,
    resident: u64,
}

impl HeldMemory {
    /// From what a process held at its start, with the first of these connections, and with all, which must all be open.
    pub(super) fn of_open(
        pid: u32,
        memory: [Memory; 3],
        first: usize,
        connections: &[Connection],
    ) -> Result<Self, Error> {
        let (sockets, all) = (sockets(pid), connections.len());
        if connections.iter().all(Connection::is_open) && sockets >= all {
            return Ok(Self::of(memory, first, all, sockets));
        }
        Err(Error::Failed(format!(
            "not all of {all} connections stayed open while they were idle: {sockets} sockets are left"
        )))
    }

    fn of(
        [start, with_first, with_all]: [Memory; 3],
        first: usize,
        all: usize,
        sockets: usize,
    ) -> Self {
        let each = |after: u64, before: u64, count: usize| {
            (after as f64 - before as f64) / count.max(1) as f64
        };
        let further = all.saturating_sub(first);
        Self {
            own: each(with_all.own, with_first.own, further),
            resident: each(with_all.resident, with_first.resident, further),
            own_over_all: each(with_all.own, start.own, all),
            own_at_start: start.own,
            own_with_first: with_first.own,
            own_with_all: with_all.own,
            sockets,
        }
    }

    /// Its own for each further connection : another's; none where either did not grow, since an allocator gives a few connections
    /// what it has.
    pub(super) fn over(&self, other: &Self) -> Option<f64> {
        let grew = self.own > 0.0 && other.own > 0.0;
        grew.then(|| self.own / other.own)
    }

    /// In one line of a table.
    pub(crate) fn text(&self) -> String {
        let (kib, mib) = (
            |bytes: f64| bytes / 1024.0,
            |bytes: u64| bytes as f64 / 1_048_576.0,
        );
        format!(
            "{:.2} KiB of its own, {:.2} KiB resident; {:.2} KiB of its own over all ({:.1} MiB at the start, {:.1} with the first, {:.1} with all)",
            kib(self.own),
            kib(self.resident),
            kib(self.own_over_all),
            mib(self.own_at_start),
            mib(self.own_with_first),
            mib(self.own_with_all)
        )
    }
}

/// The memory of a process once it has not changed for so many seconds.
pub(super) async fn steady(pid: u32, settle: f64, progress: &Progress) -> Result<Memory, Error> {
    let look = Duration::try_from_secs_f64(settle / STEADY_SAMPLES as f64);
    let look = look.map_err(|error| Error::Failed(format!("--settle: {error}")))?;
    let until = Instant::now() + STEADY_TIMEOUT;
    let mut looks: Vec<u64> = Vec::new();
    loop {
        let now = Memory {
            own: memory(pid),
            resident: resident(pid),
        };
        looks.push(now.own);
        progress.say(format!(
            "waiting for steady memory: {:.1} MiB",
            now.own as f64 / 1_048_576.0
        ));
        if is_steady(
            looks
                .get(looks.len().saturating_sub(STEADY_SAMPLES)..)
                .unwrap_or_default(),
        ) {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(Error::Timeout {
                what: "steady memory".to_owned(),
                within: STEADY_TIMEOUT,
            });
        }
        sleep(look).await;
    }
}

fn is_steady(looks: &[u64]) -> bool {
    let (least, most) = (looks.iter().min(), looks.iter().max());
    let (Some(least), Some(most)) = (least, most) else {
        return false;
    };
    looks.len() >= STEADY_SAMPLES && (most - least) as f64 <= *most as f64 * STEADY_TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_steady_after_staying_level() {
        assert!(!is_steady(&[100; STEADY_SAMPLES - 1]));
        assert!(is_steady(&[10_000; STEADY_SAMPLES]));
        assert!(!is_steady(&[10_000, 10_000, 10_000, 10_100, 1, 1, 1, 1]));
    }

    fn held(own: [u64; 3]) -> HeldMemory {
        let memory = |own| Memory {
            own,
            resident: 2 * own,
        };
        HeldMemory::of(own.map(memory), 100, 500, 503)
    }

    #[test]
    fn memory_per_connection_excludes_initially_free_memory() {
        let kept = held([1_000_000, 1_000_000, 5_000_000]);
        assert_eq!((kept.own, kept.resident), (10_000.0, 20_000.0));
        assert_eq!(kept.own_over_all, 8000.0);
        let nothing = held([1_000_000, 900_000, 900_000]);
        assert_eq!((nothing.own, nothing.own_over_all), (0.0, -200.0));
        assert_eq!(kept.over(&held([0, 0, 8_000_000])), Some(0.5));
        assert_eq!(kept.over(&nothing), None);
        assert_eq!(nothing.over(&kept), None);
    }
}
