use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why something could not be found, started, waited for or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No adequate program on this machine.
    #[error("no {wanted} here: {advice}")]
    Missing {
        wanted: &'static str,
        advice: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot signal {name} (process {pid})")]
    Signal {
        name: String,
        pid: u32,
        #[source]
        source: nix::Error,
    },
    /// A process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); its log is {}:\n{tail}", log.display())]
    Ended {
        name: String,
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    /// A process runs and does not get ready.
    #[error("{name} is not ready after {waited:?}; its log is {}:\n{tail}", log.display())]
    NotReady {
        name: String,
        waited: Duration,
        log: PathBuf,
        tail: String,
    },
    /// A process did not end in time.
    #[error("{name} still runs after {waited:?}; its log is {}", log.display())]
    StillRuns {
        name: String,
        waited: Duration,
        log: PathBuf,
    },
    /// A helper program failed.
    #[error("{program} failed ({status}): {output}")]
    Failed {
        program: String,
        status: ExitStatus,
        output: String,
    },
    /// A request over HTTP got no answer.
    #[error("no answer from port {port}")]
    NoAnswer {
        port: u16,
        #[source]
        source: std::io::Error,
    },
    /// The caller asked for what the present state does not allow.
    #[error("{0}")]
    Misuse(String),
}

impl Error {
    /// For `map_err`: what was being done when the operating system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            doing: doing.into(),
            source,
        }
    }
}
