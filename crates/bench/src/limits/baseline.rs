//! A bare WebSocket server in a process of its own: the least that can hold sockets, read frames, and write frames to all.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;
use confab_stack::{Launch, Service, free_port};
use tempfile::TempDir;

use crate::Error;
use crate::processes::{self, Usage};
use crate::stack::Places;

mod frames;
mod server;

pub(crate) use frames::frame_costs;
pub(crate) use server::{BaselineKind, BaselineSettings, serve};

/// How long it may take to be ready, and to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running bare server.
#[derive(Debug)]
pub(crate) struct Baseline {
    service: Service,
    // Behind the process that logs into it.
    _folder: TempDir,
}

impl Baseline {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(places: &Places, kind: BaselineKind) -> Result<Self, Error> {
        let data = &places.data_dir;
        std::fs::create_dir_all(data).map_err(Error::io(format!("make {}", data.display())))?;
        let folder = tempfile::Builder::new().prefix("bare-").tempdir_in(data);
        let folder = folder.map_err(Error::io(format!("make a folder in {}", data.display())))?;
        let port = free_port()?;
        let launch = launch(kind, port, folder.path().join("bare.log"))?;
        Ok(Self {
            service: Service::start(launch, port, READY_TIMEOUT).await?,
            _folder: folder,
        })
    }

    /// Where it is; any path of it is a WebSocket.
    pub(crate) fn url(&self) -> String {
        self.service.url()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.service.process().id()
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.service.process_mut().stop(STOP_TIMEOUT).await?;
        Ok(())
    }
}

/// Several that tell, as many as a confab has gateways.
pub(crate) async fn start_all(places: &Places, count: usize) -> Result<Vec<Baseline>, Error> {
    let mut baselines = Vec::new();
    for _ in 0..count {
        baselines.push(Baseline::start(places, BaselineKind::Telling).await?);
    }
    Ok(baselines)
}

/// Ends all of them.
pub(crate) async fn stop_all(baselines: Vec<Baseline>) -> Result<(), Error> {
    for bare in baselines {
        bare.stop().await?;
    }
    Ok(())
}

/// Processors' time that they have used, and bytes that they hold of their own.
pub(crate) fn usage(baselines: &[Baseline]) -> (Option<Usage>, Option<u64>) {
    let pids = || baselines.iter().map(Baseline::pid);
    let usage = Usage {
        gateways: pids().map(processes::processor).sum(),
        load: processes::own_processor(),
        ..Usage::default()
    };
    (Some(usage), Some(pids().map(processes::memory).sum()))
}

fn launch(kind: BaselineKind, port: u16, log: PathBuf) -> Result<Launch, Error> {
    let program = std::env::current_exe().map_err(Error::io("find this program"))?;
    let kind = kind.to_possible_value();
    let kind = kind.map_or_else(String::new, |value| value.get_name().to_owned());
    let args = ["bench", "bare", "--kind", &kind, "--port"].map(str::to_owned);
    Ok(Launch {
        name: "bare".to_owned(),
        program,
        args: args.into_iter().chain([port.to_string()]).collect(),
        env: Vec::new(),
        log,
    })
}
