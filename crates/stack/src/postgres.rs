mod account;
mod psql;
mod reach;
mod standby;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use account::Account;

use crate::process::{POLL_INTERVAL, Process};
use crate::signals::{StopSignals, children, send};
use crate::{Error, Programs, folder};

/// The superuser of every server that this crate makes.
const SUPERUSER_NAME: &str = "confab";

/// Time that a server may take to make its data folder, or to recover and serve.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The folder and port of a Postgres server.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Its data, log and password.
    pub folder: PathBuf,
    /// Its port on 127.0.0.1, the same after every restart.
    pub port: u16,
    pub durability: Durability,
}

/// The losses that commits survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Each commit is on disk before it is answered, and survives the end of the machine.
    #[default]
    Disk,
    /// Commits survive the end of the server's processes, not of the machine: nothing waits for the disk.
    Processes,
}

impl Durability {
    /// Arguments of `initdb`.
    fn of_making(self) -> &'static [&'static str] {
        match self {
            Self::Disk => &[],
            Self::Processes => &["--no-sync"],
        }
    }

    fn settings(self) -> [&'static str; 2] {
        match self {
            Self::Disk => ["fsync=on", "full_page_writes=on"],
            // Pages that are written by halves are those of a machine that ends amid it.
            Self::Processes => ["fsync=off", "full_page_writes=off"],
        }
    }
}

/// A private Postgres on 127.0.0.1, with a password of its own.
///
/// Postgres refuses to run as root. Started by root it runs as the owner of its data, at first as `postgres` or
/// `nobody`, and is handed its data folder as an open descriptor: the path to it may lead through folders
/// that only root may enter.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    settings: PostgresSettings,
    account: Account,
    password: String,
    // Before the copy of its programs, which goes last.
    process: Option<Process>,
    copied: Option<TempDir>,
}

impl Postgres {
    /// Starts it and waits until it serves; its data is made when the folder has none.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::NotReady`] with the end of its log; [`Error::Misuse`] for data of another user.
    pub async fn start(programs: &Programs, settings: PostgresSettings) -> Result<Self, Error> {
        let folder =
            std::path::absolute(&settings.folder).map_err(Error::io("read the current folder"))?;
        folder::make(&folder)?;
        let account = Account::of(&folder.join("data"))?;
        let copied = reach::copy_for(&account, programs)?;
        let mut postgres = Self {
            programs: programs.postgres.clone(),
            settings: PostgresSettings { folder, ..settings },
            account,
            password: String::new(),
            process: None,
            copied,
        };
        if !postgres.data().exists() {
            postgres.make_data().await?;
        }
        postgres.password = postgres.read_password()?;
        postgres.up().await?;
        Ok(postgres)
    }

    /// Starts it again after [`Postgres::kill`] or [`Postgres::stop`], and waits until it serves.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn up(&mut self) -> Result<(), Error> {
        if let Some(process) = &self.process {
            return Err(Error::Misuse(format!(
                "Postgres runs already, as process {}",
                process.id()
            )));
        }
        let until = Instant::now() + START_TIMEOUT;
        loop {
            match self.try_up(until).await {
                Err(Error::Ended { tail, .. }) if is_held(&tail) && Instant::now() < until => {}
                outcome => return outcome.map(|process| self.process = Some(process)),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// A connection URL, password included.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER_NAME}:{}@127.0.0.1:{}/{database}",
            self.password, self.settings.port
        )
    }

    pub fn port(&self) -> u16 {
        self.settings.port
    }

    pub fn log(&self) -> PathBuf {
        self.settings.folder.join("postgres.log")
    }

    /// The running server's first process.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it is down.
    pub fn process(&mut self) -> Result<&mut Process, Error> {
        self.process
            .as_mut()
            .ok_or_else(|| Error::Misuse("Postgres is down".to_owned()))
    }

    /// Makes a database when it is not there, and returns its URL.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a name other than `[a-z0-9_]{1,63}`, [`Error::Failed`] when Postgres refuses.
    pub async fn database(&self, name: &str) -> Result<String, Error> {
        let plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            return Err(Error::Misuse(format!(
                "{name:?} is no name for a database: use a-z, 0-9 and _"
            )));
        }
        match self
            .sql("postgres", &format!("CREATE DATABASE \"{name}\""))
            .await
        {
            Err(Error::Failed { output, .. }) if output.contains("already exists") => {
                Ok(self.url(name))
            }
            outcome => outcome.map(|_| self.url(name)),
        }
    }

    /// Runs statements and returns their rows, columns separated by `|`.
    ///
    /// # Errors
    /// [`Error::Failed`] with Postgres' message.
    pub async fn sql(&self, database: &str, statements: &str) -> Result<String, Error> {
        psql::run(self, database, statements).await
    }

    /// Ends all its processes with SIGKILL, as the end of its machine would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let backends = children(process.id());
        process.kill()?;
        signal_all(&backends, Signal::SIGKILL);
        Ok(())
    }

    /// Ends it orderly without waiting for its clients, by force at the deadline.
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
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill()?;
        self.up().await
    }

    /// Stops the time of all its processes until [`Postgres::resume`].
    ///
    /// # Errors
    /// [`Error::Misuse`] while it is down.
    pub fn pause(&mut self) -> Result<(), Error> {
        let process = self.process()?;
        process.pause()?;
        signal_all(&children(process.id()), Signal::SIGSTOP);
        Ok(())
    }

    /// Lets all its processes go on.
    ///
    /// # Errors
    /// [`Error::Misuse`] while it is down.
    pub fn resume(&mut self) -> Result<(), Error> {
        let process = self.process()?;
        signal_all(&children(process.id()), Signal::SIGCONT);
        process.resume()
    }

    fn data(&self) -> PathBuf {
        self.settings.folder.join("data")
    }

    fn password_file(&self) -> PathBuf {
        self.settings.folder.join("password")
    }

    /// Makes the data beside its place, so that an interrupted start leaves nothing that looks complete.
    async fn make_data(&mut self) -> Result<(), Error> {
        let new = self.settings.folder.join("data.new");
        folder::remove(&new)?;
        folder::make(&new)?;
        folder::write_private(&self.password_file(), &random_password())?;
        self.account.give(&new)?;
        self.account.give(&self.password_file())?;
        let handed = self.account.handed(&self.password_file(), &new);
        let args = [
            "-D",
            &handed.data,
            "-U",
            SUPERUSER_NAME,
            "--encoding=UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            "--pwfile",
        ];
        let args = args
            .into_iter()
            .chain([handed.password.as_str()])
            .chain(self.settings.durability.of_making().iter().copied())
            .map(str::to_owned);
        let launch = handed.launch(self.program("initdb"), args.collect(), self.log());
        let log = launch.log.clone();
        let mut initdb = Process::spawn_with(launch, StopSignals::TERM_FIRST, self.copied_path())?;
        let status = initdb.wait(START_TIMEOUT).await?;
        if !status.success() {
            let output = crate::launch::tail(&log);
            return Err(Error::Failed {
                program: "initdb".to_owned(),
                status,
                output,
            });
        }
        fs::rename(&new, self.data()).map_err(Error::io(format!("rename {}", new.display())))
    }

    fn read_password(&self) -> Result<String, Error> {
        let path = self.password_file();
        fs::read_to_string(&path).map_err(Error::io(format!(
            "read {} (without it the data beside it is of no use: remove both)",
            path.display()
        )))
    }

    async fn try_up(&self, until: Instant) -> Result<Process, Error> {
        let handed = self.account.handed("/dev/null".as_ref(), &self.data());
        let port = format!("port={}", self.settings.port);
        let mut args = vec!["-D".to_owned(), handed.data.clone()];
        for setting in [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "synchronous_commit=on",
            "timezone=UTC",
            "log_timezone=UTC",
        ]
        .into_iter()
        .chain(self.settings.durability.settings())
        {
            args.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let launch = handed.launch(self.program("postgres"), args, self.log());
        let mut process =
            Process::spawn_with(launch, StopSignals::POSTGRES_FAST, self.copied_path())?;
        while !self.is_ready(process.id()) {
            process.expect_running(until, START_TIMEOUT)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(process)
    }

    /// Reads what the server writes into its lock file: its process id first, its state in the eighth line. A standby serves, too.
    fn is_ready(&self, pid: u32) -> bool {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = lock.lines().map(str::trim);
        lines.next() == Some(pid.to_string().as_str())
            && matches!(lines.nth(6), Some("ready" | "standby"))
    }

    fn program(&self, name: &str) -> PathBuf {
        let copied = self
            .copied
            .as_ref()
            .map(|copy| reach::programs_in(copy.path()));
        copied.as_ref().unwrap_or(&self.programs).join(name)
    }

    fn copied_path(&self) -> Option<&std::path::Path> {
        self.copied.as_ref().map(TempDir::path)
    }
}

/// Returns true if the end of the log says that processes of a killed server have still to go.
fn is_held(tail: &str) -> bool {
    let mut last = tail.lines().rev().take(3);
    last.any(|line| {
        line.contains("pre-existing shared memory")
            || line.contains("\"postmaster.pid\" already exists")
    })
}

/// Signals what is still there of a list of processes.
fn signal_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Err(error) = send("a Postgres process", *pid, signal) {
            tracing::debug!(%error, "it was gone already");
        }
    }
}

/// 128 random bits, in letters that need no escape in a URL.
fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}
