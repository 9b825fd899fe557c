//! A confab of the measurement's own: NATS, Postgres, workers and gateways, as processes of this very binary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use confab_stack::{
    Durability, Launch, Nats, NatsSettings, Postgres, PostgresSettings, Process, Programs, Service,
    free_port,
};
use futures_util::future::join_all;
use tracing::warn;

use crate::Error;
use crate::processes::{self, Usage};
use crate::tokens::Tokens;

mod folder;

pub(crate) use folder::Lock;

use folder::Folder;

/// How long a process may take to be ready, and to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a migration may take: one over a database that was kept may rewrite ten million events.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Where a measurement keeps what it needs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Places {
    /// Where nats-server and PostgreSQL are looked for when they are not on PATH.
    #[arg(long, env = "CONFAB_BENCH_TOOLS_DIR", default_value = ".confab/tools")]
    pub(crate) tools_dir: PathBuf,
    /// Where databases and logs of measurements stand: on the disk that is to be measured.
    #[arg(long, env = "CONFAB_BENCH_DATA_DIR", default_value = ".confab/bench")]
    pub(crate) data_dir: PathBuf,
    /// The confab whose processes are measured; without it this very one. So two builds can be compared under one load.
    #[arg(long, env = "CONFAB_BENCH_PROGRAM")]
    pub(crate) program: Option<PathBuf>,
}

/// How many processes of which settings.
#[derive(Debug, Clone)]
pub(crate) struct StackShape {
    pub(crate) gateways: usize,
    pub(crate) workers: usize,
    /// Variables of every gateway, over the usual ones.
    pub(crate) gateway_env: Vec<(&'static str, String)>,
    /// Variables of every worker, likewise.
    pub(crate) worker_env: Vec<(&'static str, String)>,
}

impl Default for StackShape {
    fn default() -> Self {
        Self {
            gateways: 2,
            workers: 1,
            gateway_env: Vec::new(),
            worker_env: Vec::new(),
        }
    }
}

/// NATS and Postgres alone, with an empty database.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) nats: Nats,
    pub(crate) postgres: Postgres,
    /// The URL of a database with confab's schema.
    pub(crate) database: String,
    /// Where logs go.
    logs: PathBuf,
    program: PathBuf,
    // Behind the servers that write into it.
    _folder: Folder,
}

impl Servers {
    /// Starts both in a folder that goes when they go.
    pub(crate) async fn start(places: &Places) -> Result<Self, Error> {
        let data = &places.data_dir;
        std::fs::create_dir_all(data).map_err(Error::io(format!("make {}", data.display())))?;
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(data);
        let folder = folder.map_err(Error::io(format!("make a folder in {}", data.display())))?;
        let path = folder.path().to_owned();
        Self::start_in(places, &path, Folder::Passing(folder)).await
    }

    /// Starts both over what a folder holds, and keeps it.
    pub(crate) async fn start_kept(places: &Places, lock: Lock) -> Result<Self, Error> {
        let path = lock.folder.clone();
        std::fs::create_dir_all(&path).map_err(Error::io(format!("make {}", path.display())))?;
        Self::start_in(places, &path, Folder::Kept(lock)).await
    }

    async fn start_in(places: &Places, path: &Path, folder: Folder) -> Result<Self, Error> {
        let programs = Programs::find(&places.tools_dir)?;
        let this = std::env::current_exe().map_err(Error::io("find this program"));
        let nats = NatsSettings {
            folder: path.join("nats"),
            port: free_port()?,
            monitor: None,
        };
        let nats = Nats::start(&programs, nats).await?;
        let postgres = PostgresSettings {
            folder: path.join("postgres"),
            port: free_port()?,
            durability: Durability::Disk,
        };
        let postgres = Postgres::start(&programs, postgres).await?;
        let database = postgres.database("confab").await?;
        let servers = Self {
            nats,
            postgres,
            database,
            logs: path.join("logs"),
            program: places.program.clone().map_or(this, Ok)?,
            _folder: folder,
        };
        servers.migrate().await?;
        Ok(servers)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let env = vec![("CONFAB_DATABASE_URL", self.database.clone())];
        let mut migration = Process::spawn(self.launch("migrate", "migrate", env)?)?;
        let status = migration.wait(MIGRATION_TIMEOUT).await?;
        if status.success() {
            Ok(())
        } else {
            let log = std::fs::read_to_string(migration.log()).unwrap_or_default();
            Err(Error::Failed(format!("the migration failed:\n{log}")))
        }
    }

    fn launch(
        &self,
        role: &str,
        name: &str,
        env: Vec<(&'static str, String)>,
    ) -> Result<Launch, Error> {
        let named = |(name, value): (&str, String)| (name.to_owned(), Some(value));
        let mut all = vec![("CONFAB_LOG".to_owned(), Some("warn".to_owned()))];
        all.extend(env.into_iter().map(named));
        Ok(Launch {
            name: name.to_owned(),
            program: self.program.clone(),
            args: vec![role.to_owned()],
            env: all,
            log: self.logs.join(format!("{name}.log")),
        })
    }

    /// Seconds of processor time of NATS and of Postgres.
    pub(crate) fn usage(&mut self) -> Result<Usage, Error> {
        Ok(Usage {
            nats: processes::processor(self.nats.process()?.id()),
            postgres: processes::processor_of_family(self.postgres.process()?.id()),
            load: processes::own_processor(),
            ..Usage::default()
        })
    }

    /// Stops both.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        let nats = self.nats.stop(STOP_TIMEOUT).await;
        self.postgres.stop(STOP_TIMEOUT).await?;
        nats.map_err(Error::from)
    }
}

/// A running confab.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) gateways: Vec<Service>,
    pub(crate) workers: Vec<Service>,
    pub(crate) servers: Servers,
    pub(crate) tokens: Tokens,
}

impl Stack {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(places: &Places, shape: &StackShape) -> Result<Self, Error> {
        let servers = Servers::start(places).await?;
        Self::over(servers, shape).await
    }

    /// Starts workers and gateways over servers that run.
    pub(crate) async fn over(servers: Servers, shape: &StackShape) -> Result<Self, Error> {
        let mut stack = Self {
            gateways: Vec::new(),
            workers: Vec::new(),
            servers,
            tokens: Tokens::new()?,
        };
        for number in 0..shape.workers {
            let worker = stack.worker(number, shape)?;
            stack.workers.push(worker);
        }
        for number in 0..shape.gateways {
            let gateway = stack.gateway(number, shape)?;
            stack.gateways.push(gateway);
        }
        for service in stack.workers.iter_mut().chain(&mut stack.gateways) {
            service.ready(READY_TIMEOUT).await?;
        }
        Ok(stack)
    }

    fn worker(&self, number: usize, shape: &StackShape) -> Result<Service, Error> {
        let env = vec![
            ("CONFAB_NATS_URL", self.servers.nats.url()),
            ("CONFAB_DATABASE_URL", self.servers.database.clone()),
        ];
        self.service("worker", number, env, &shape.worker_env)
    }

    fn gateway(&self, number: usize, shape: &StackShape) -> Result<Service, Error> {
        let env = vec![
            ("CONFAB_NATS_URL", self.servers.nats.url()),
            ("CONFAB_JWT_PUBLIC_KEY", self.tokens.public_pem()?),
            ("CONFAB_JWT_ISSUER", self.tokens.issuer.clone()),
            ("CONFAB_JWT_AUDIENCE", self.tokens.audience.clone()),
            ("CONFAB_SINGLE_TENANT", "true".to_owned()),
            // The load's connections come at once, as no installation's do; the storm of resumes sets its own.
            ("CONFAB_CONNECT_RATE", "100000".to_owned()),
            ("CONFAB_DRAIN_DELAY", "0".to_owned()),
            // And few of its users ask for what many would.
            ("CONFAB_RATE_LIMIT", "off".to_owned()),
            ("CONFAB_USER_CONNECTIONS", "1000000".to_owned()),
            ("CONFAB_USER_REQUESTS", "1000000".to_owned()),
        ];
        self.service("gateway", number, env, &shape.gateway_env)
    }

    fn service(
        &self,
        role: &str,
        number: usize,
        mut env: Vec<(&'static str, String)>,
        more: &[(&'static str, String)],
    ) -> Result<Service, Error> {
        let port = free_port()?;
        env.push(("CONFAB_LISTEN", format!("127.0.0.1:{port}")));
        env.extend_from_slice(more);
        let launch = self
            .servers
            .launch(role, &format!("{role}-{number}"), env)?;
        Ok(Service::spawn(launch, port)?)
    }

    /// Seconds of processor time by part.
    pub(crate) fn usage(&mut self) -> Result<Usage, Error> {
        let of = |services: &[Service]| {
            let each = services.iter().map(|service| service.process().id());
            each.map(processes::processor).sum()
        };
        Ok(Usage {
            gateways: of(&self.gateways),
            workers: of(&self.workers),
            ..self.servers.usage()?
        })
    }

    /// Where its gateways are.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.gateways.iter().map(Service::url).collect()
    }

    /// Stops the workers and starts those of a shape in their place; gateways and what is connected to them stay.
    pub(crate) async fn exchange_workers(&mut self, shape: &StackShape) -> Result<(), Error> {
        stop_all(&mut self.workers).await;
        self.workers.clear();
        for number in 0..shape.workers {
            let worker = self.worker(number, shape)?;
            self.workers.push(worker);
        }
        for worker in &mut self.workers {
            worker.ready(READY_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Stops everything, clients of others first.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        for services in [&mut self.gateways, &mut self.workers] {
            stop_all(services).await;
        }
        self.servers.stop().await
    }
}

async fn stop_all(services: &mut [Service]) {
    let stops = services
        .iter_mut()
        .map(|service| service.process_mut().stop(STOP_TIMEOUT));
    for stopped in join_all(stops).await {
        if let Err(error) = stopped {
            warn!(%error, "a process did not stop well");
        }
    }
}
