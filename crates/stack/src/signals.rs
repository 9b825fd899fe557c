use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// The signals that end a kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopSignals {
    /// Ends it orderly.
    pub(crate) stop: Signal,
    /// Ends it when its owner is gone or drops it.
    pub(crate) abandon: Signal,
}

impl StopSignals {
    pub(crate) const TERM_FIRST: Self = Self {
        stop: Signal::SIGTERM,
        abandon: Signal::SIGKILL,
    };
    /// Postgres: SIGTERM would wait for its clients, and SIGKILL leaves shared memory behind.
    pub(crate) const POSTGRES_FAST: Self = Self {
        stop: Signal::SIGINT,
        abandon: Signal::SIGQUIT,
    };
}

pub(crate) fn send(name: &str, pid: u32, signal: Signal) -> Result<(), Error> {
    kill(pid_of(pid), signal).map_err(|source| Error::Signal {
        name: name.to_owned(),
        pid,
        source,
    })
}

/// The children of a process, as far as the system tells them.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}
