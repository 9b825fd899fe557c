use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::process::{POLL_INTERVAL, Process};
use crate::signals::StopSignals;
use crate::{Error, Launch, Programs, folder};

/// Time that the server may take to recover its streams and listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The folder and ports of a NATS server.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Its configuration, log and streams.
    pub folder: PathBuf,
    /// Its port on 127.0.0.1, the same after every restart.
    pub port: u16,
    /// A port for its monitoring pages (`/varz`, `/jsz`), when they are wanted.
    pub monitor: Option<u16>,
}

/// A private NATS server with JetStream, on 127.0.0.1 only and without passwords.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    settings: NatsSettings,
    /// Told in its greeting, and so tells it from another server on the same port.
    name: String,
    process: Option<Process>,
}

impl Nats {
    /// Starts it and waits until it serves. Streams that are in its folder come back.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::NotReady`], with the end of its log.
    pub async fn start(programs: &Programs, settings: NatsSettings) -> Result<Self, Error> {
        let settings = NatsSettings {
            folder: absolute(&settings.folder)?,
            ..settings
        };
        folder::make(&settings.folder)?;
        let (program, name) = (
            programs.nats_server.clone(),
            format!("confab-{:08x}", rand::random::<u32>()),
        );
        let mut nats = Self {
            program,
            settings,
            name,
            process: None,
        };
        nats.up().await?;
        Ok(nats)
    }

    /// Starts it again after [`Nats::kill`] or [`Nats::stop`], and waits until it serves.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn up(&mut self) -> Result<(), Error> {
        self.must_be_down("started")?;
        let config = self.settings.folder.join("nats.conf");
        folder::write_private(&config, &self.config())?;
        let launch = Launch {
            name: "nats-server".to_owned(),
            program: self.program.clone(),
            args: vec!["--config".to_owned(), config.display().to_string()],
            env: Vec::new(),
            log: self.log(),
        };
        let mut process = Process::spawn_with(launch, StopSignals::TERM_FIRST, None)?;
        self.ready(&mut process).await?;
        self.process = Some(process);
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.settings.port)
    }

    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// The port of its monitoring pages, where they are wanted.
    pub fn monitor(&self) -> Option<u16> {
        self.settings.monitor
    }

    pub fn log(&self) -> PathBuf {
        self.settings.folder.join("nats.log")
    }

    /// The running process.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it is down.
    pub fn process(&mut self) -> Result<&mut Process, Error> {
        self.process
            .as_mut()
            .ok_or_else(|| Error::Misuse("nats-server is down".to_owned()))
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process
            .take()
            .map_or(Ok(()), |mut process| process.kill())
    }

    /// Ends it orderly, by force at the deadline.
    ///
    /// # Errors
    /// [`Error::StillRuns`] when force was needed.
    pub async fn stop(&mut self, deadline: Duration) -> Result<(), Error> {
        match self.process.take() {
            Some(mut process) => process.stop(deadline).await.map(drop),
            None => Ok(()),
        }
    }

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.up().await
    }

    /// Has the running server read its configuration again, with what stands in `extra.conf` by now. It takes it a moment later, or writes into
    /// its log why not.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it is down.
    pub fn reload(&mut self) -> Result<(), Error> {
        let config = self.settings.folder.join("nats.conf");
        folder::write_private(&config, &self.config())?;
        self.process()?.signal(Signal::SIGHUP)
    }

    /// Forgets all streams and buckets; the server must be down.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it runs.
    pub fn erase_store(&self) -> Result<(), Error> {
        self.must_be_down("erased")?;
        folder::remove(&self.store())
    }

    /// Copies streams and buckets aside, over an earlier copy; the server must be down.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it runs.
    pub fn copy_store(&self) -> Result<(), Error> {
        self.must_be_down("copied")?;
        folder::make(&self.store())?;
        folder::remove(&self.copied())?;
        folder::copy(&self.store(), &self.copied())
    }

    /// Puts the copy of [`Nats::copy_store`] in the place of what is there now; the server must be down.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it runs.
    pub fn put_back_store(&self) -> Result<(), Error> {
        self.must_be_down("replaced")?;
        folder::remove(&self.store())?;
        folder::copy(&self.copied(), &self.store())
    }

    fn store(&self) -> PathBuf {
        self.settings.folder.join("store")
    }

    fn copied(&self) -> PathBuf {
        self.settings.folder.join("store.copy")
    }

    fn must_be_down(&self, verb: &str) -> Result<(), Error> {
        match &self.process {
            Some(process) => Err(Error::Misuse(format!(
                "process {} must end before NATS is {verb}",
                process.id()
            ))),
            None => Ok(()),
        }
    }

    /// Pings every 5 s: with the default of two minutes a dead worker stays in its queue group for as long.
    fn config(&self) -> String {
        let (name, port) = (&self.name, self.settings.port);
        let store = serde_json::Value::from(self.store().display().to_string());
        let monitor = self
            .settings
            .monitor
            .map(|port| format!("http: \"127.0.0.1:{port}\"\n"))
            .unwrap_or_default();
        format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n{monitor}ping_interval: \"5s\"\nping_max: 2\n\
             jetstream {{ store_dir: {store} }}\n{}",
            self.extra()
        )
    }

    /// Returns what a test has written into `extra.conf` in its folder.
    fn extra(&self) -> String {
        let extra = self.settings.folder.join("extra.conf");
        std::fs::read_to_string(extra).unwrap_or_default()
    }

    async fn ready(&self, process: &mut Process) -> Result<(), Error> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            process.expect_running(until, START_TIMEOUT)?;
            let greeting =
                tokio::time::timeout(Duration::from_secs(2), greeting(self.settings.port)).await;
            if matches!(greeting, Ok(Some(info)) if info.jetstream && info.server_name == self.name)
            {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(folder).map_err(Error::io("read the current folder"))
}

/// The part of the server's INFO line that tells it from another server on its port.
#[derive(Deserialize)]
struct Info {
    server_name: String,
    #[serde(default)]
    jetstream: bool,
}

/// Returns what a NATS server says first; it listens only after it has recovered its streams.
async fn greeting(port: u16) -> Option<Info> {
    const MAX_GREETING_BYTES: u64 = 64 * 1024;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_GREETING_BYTES))
        .read_line(&mut line)
        .await
        .ok()?;
    serde_json::from_str(line.strip_prefix("INFO ")?).ok()
}
