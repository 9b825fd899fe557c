use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::launch::tail;
use crate::signals::{StopSignals, send};
use crate::{Error, Launch};

/// Becomes the program, and leaves a watcher behind that ends it when standard input, a pipe from the owner,
/// closes without a word.
///
/// The watcher is nobody's child, so that a server that waits for its children never meets it, and it
/// continues what may be paused: a stopped process takes no signal but SIGKILL.
const WATCHER_SCRIPT: &str = r#"
abandon=$1 leftover=$2; shift 2
exec 3<&0 </dev/null
( (
    read -r word <&3 && exit 0
    kill -s "$abandon" $$; kill -s CONT $$
    [ -z "$leftover" ] || rm -rf "$leftover"
) >/dev/null 2>&1 & )
exec 3<&-
exec "$@"
"#;

/// Interval at which a process is looked at while something waits for it.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A running child process. Dropping it ends it at once.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    signals: StopSignals,
    child: Child,
}

impl Process {
    /// Starts a program that ends orderly on SIGTERM.
    ///
    /// # Errors
    /// When its log or the shell cannot be opened. A program that is not there shows as one that ends with 127.
    pub fn spawn(launch: Launch) -> Result<Self, Error> {
        Self::spawn_with(launch, StopSignals::TERM_FIRST, None)
    }

    /// `leftover` is a folder to be removed when the owner is killed, since it cannot do that itself then.
    pub(crate) fn spawn_with(
        launch: Launch,
        signals: StopSignals,
        leftover: Option<&Path>,
    ) -> Result<Self, Error> {
        let child = command(&launch, signals, leftover)?
            .spawn()
            .map_err(Error::io(format!("start {}", launch.name)))?;
        tracing::debug!(process = launch.name, pid = child.id(), "started");
        Ok(Self {
            launch,
            signals,
            child,
        })
    }

    /// The process id of the program itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The file its output goes to.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// Returns how it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let status = self
            .child
            .try_wait()
            .map_err(Error::io(format!("look after {}", self.launch.name)))?;
        if status.is_some() {
            self.release();
        }
        Ok(status)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`Error::StillRuns`] at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, Error> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                let name = self.launch.name.clone();
                return Err(Error::StillRuns {
                    name,
                    waited: deadline,
                    log: self.launch.log.clone(),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Ends it orderly, and by force at the deadline.
    ///
    /// # Errors
    /// [`Error::StillRuns`] when force was needed; it does not run any more then.
    pub async fn stop(&mut self, deadline: Duration) -> Result<ExitStatus, Error> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.tell_to_stop()?;
        let outcome = self.wait(deadline).await;
        if outcome.is_err() {
            self.kill()?;
        }
        outcome
    }

    /// Sends the signal that ends it orderly, without waiting for the end.
    ///
    /// # Errors
    /// When it has ended.
    pub fn tell_to_stop(&mut self) -> Result<(), Error> {
        self.signal(self.signals.stop)
    }

    /// Ends it with SIGKILL; it is gone on return.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::SIGKILL)
    }

    /// Stops its time (SIGSTOP) until [`Process::resume`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.signal(Signal::SIGCONT)
    }

    /// That it runs, for a loop that waits until it is ready.
    ///
    /// # Errors
    /// [`Error::Ended`] when it does not, [`Error::NotReady`] when `until` has passed.
    pub(crate) fn expect_running(
        &mut self,
        until: Instant,
        deadline: Duration,
    ) -> Result<(), Error> {
        let (name, log) = (self.launch.name.clone(), self.launch.log.clone());
        if let Some(status) = self.ended()? {
            return Err(Error::Ended {
                name,
                status,
                tail: tail(&log),
                log,
            });
        }
        if Instant::now() >= until {
            return Err(Error::NotReady {
                name,
                waited: deadline,
                tail: tail(&log),
                log,
            });
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<(), Error> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        // Not reaped before `wait`, so both reach it, even when the first has ended it already.
        send(&self.launch.name, self.child.id(), signal)?;
        send(&self.launch.name, self.child.id(), Signal::SIGCONT)?;
        self.child
            .wait()
            .map_err(Error::io(format!("wait for {}", self.launch.name)))?;
        self.release();
        Ok(())
    }

    /// The child is not reaped before `ended` says so, so its id cannot be another's.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(status) = self.ended()? {
            return Err(Error::Misuse(format!(
                "{} has ended ({status})",
                self.launch.name
            )));
        }
        send(&self.launch.name, self.child.id(), signal)
    }

    /// Sends the watcher home: the process id may soon be another's.
    fn release(&mut self) {
        if let Some(mut pipe) = self.child.stdin.take()
            && let Err(error) = pipe.write_all(b"done\n")
        {
            tracing::debug!(process = self.launch.name, %error, "the watcher was gone already");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end(self.signals.abandon) {
            tracing::warn!(process = self.launch.name, %error, "could not be ended");
        }
    }
}

fn command(
    launch: &Launch,
    signals: StopSignals,
    leftover: Option<&Path>,
) -> Result<Command, Error> {
    let log = open_log(&launch.log)?;
    let errors = log.try_clone().map_err(Error::io("open the log twice"))?;
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        WATCHER_SCRIPT,
        "sh",
        signals.abandon.as_str().trim_start_matches("SIG"),
    ]);
    command.arg(leftover.unwrap_or(Path::new("")));
    command.arg(&launch.program).args(&launch.args);
    for (name, value) in &launch.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // A group of its own: Ctrl-C in the terminal is for the owner, which ends its children in order.
    command
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    Ok(command)
}

fn open_log(path: &Path) -> Result<std::fs::File, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(format!("make {}", folder.display())))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(Error::io(format!("open the log {}", path.display())))
}
