use std::time::Duration;

use tokio::time::Instant;

use crate::process::{POLL_INTERVAL, Process};
use crate::{Error, Launch, http};

/// A process that says at `GET /ready` of a port when it may serve; it can be ended and begun again.
#[derive(Debug)]
pub struct Service {
    launch: Launch,
    port: u16,
    process: Process,
}

impl Service {
    /// Starts it without waiting until it is ready.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn(launch: Launch, port: u16) -> Result<Self, Error> {
        let process = Process::spawn(launch.clone())?;
        Ok(Self {
            launch,
            port,
            process,
        })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// As [`Service::ready`].
    pub async fn start(launch: Launch, port: u16, deadline: Duration) -> Result<Self, Error> {
        let mut service = Self::spawn(launch, port)?;
        service.ready(deadline).await?;
        Ok(service)
    }

    /// Waits until it answers `GET /ready` with 200.
    ///
    /// # Errors
    /// [`Error::Ended`] when it ends before, [`Error::NotReady`] at the deadline.
    pub async fn ready(&mut self, deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        loop {
            self.process.expect_running(until, deadline)?;
            let answer = http::get(self.port, "/ready", Duration::from_secs(2)).await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Begins it anew, ending it by force when it still runs; without waiting until it is ready.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn respawn(&mut self) -> Result<(), Error> {
        self.process.kill()?;
        self.process = Process::spawn(self.launch.clone())?;
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// To kill, stop, pause and resume it.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
