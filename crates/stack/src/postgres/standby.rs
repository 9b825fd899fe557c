use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::account::Account;
use super::{Postgres, PostgresSettings, START_TIMEOUT};
use crate::process::POLL_INTERVAL;
use crate::{Error, Programs, folder};

/// What a standby calls itself to its primary.
const STANDBY_NAME: &str = "standby";
/// Time that a primary may take to end, so that its data can be copied.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

impl Postgres {
    /// Makes a streaming standby of this server, in a folder and at a port of its own, and starts it; this server is stopped
    /// for a moment, to be copied.
    ///
    /// # Errors
    /// As [`Postgres::start`]; [`Error::Failed`] with Postgres' message.
    pub async fn standby(
        &mut self,
        programs: &Programs,
        settings: PostgresSettings,
    ) -> Result<Self, Error> {
        self.stop(STOP_TIMEOUT).await?;
        let data = settings.folder.join("data");
        folder::make(&settings.folder)?;
        folder::copy(&self.data(), &data)?;
        let signal = data.join("standby.signal");
        fs::write(&signal, "").map_err(Error::io("write standby.signal"))?;
        self.follows(&data.join("postgresql.auto.conf"))?;
        give_all(self.account, &data)?;
        let password = settings.folder.join("password");
        fs::copy(self.password_file(), &password).map_err(Error::io("copy the password"))?;
        self.account.give(&password)?;
        self.up().await?;
        Self::start(programs, settings).await
    }

    /// From now on each commit waits until the standby has it on disk, too.
    ///
    /// # Errors
    /// [`Error::Failed`] with Postgres' message; [`Error::Misuse`] when the standby does not follow in time.
    pub async fn commit_on_standby(&self) -> Result<(), Error> {
        let name = format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY_NAME}'");
        self.sql("postgres", &name).await?;
        self.sql("postgres", "SELECT pg_reload_conf()").await?;
        let until = Instant::now() + START_TIMEOUT;
        let state = "SELECT sync_state FROM pg_stat_replication";
        while self.sql("postgres", state).await? != "sync" {
            if Instant::now() >= until {
                return Err(Error::Misuse("the standby does not follow".to_owned()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Makes a standby the primary, and waits until it takes writes.
    ///
    /// # Errors
    /// [`Error::Failed`] with Postgres' message.
    pub async fn promote(&self) -> Result<(), Error> {
        let seconds = START_TIMEOUT.as_secs();
        let promote = format!("SELECT pg_promote(true, {seconds})");
        self.sql("postgres", &promote).await.map(drop)
    }

    /// Writes whom a copy of this server follows.
    fn follows(&self, settings: &Path) -> Result<(), Error> {
        let before = fs::read_to_string(settings).map_err(Error::io("read the settings"))?;
        let primary = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user={} password={} application_name={STANDBY_NAME}'\n",
            self.settings.port,
            super::SUPERUSER_NAME,
            self.password
        );
        fs::write(settings, before + &primary).map_err(Error::io("write the settings"))
    }
}

fn give_all(account: Account, path: &Path) -> Result<(), Error> {
    account.give(path)?;
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(Error::io("read the copy"))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read the copy"))?;
            give_all(account, &entry.path())?;
        }
    }
    Ok(())
}
