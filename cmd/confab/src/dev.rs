//! `confab dev`: a whole confab on this machine, from one command.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use confab_protocol::chain::chain;
use confab_stack::{
    Durability, Launch, Nats, NatsSettings, Postgres, PostgresSettings, Process, Programs, Service,
    free_port, is_free,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lifecycle;

mod args;
pub(crate) mod key;
mod tell;

pub(crate) use args::DevArgs;

/// Users that get a token.
const TOKEN_USERS: [&str; 2] = ["alice", "bob"];
/// How long a process may take to be ready, and to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often processes are looked after.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a process that died waits for its new start.
const RESTART_DELAY: Duration = Duration::from_secs(1);
const TOKEN_LIFETIME: time::Duration = time::Duration::days(30);

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    lifecycle::run(
        stop.clone(),
        READY_TIMEOUT + STOP_TIMEOUT * 4,
        Box::pin(up(args, stop)),
    )
    .await
}

async fn up(args: DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let data = folder(&args.data_dir)?;
    let _lock = lock(&data)?;
    forget_ready_file(&args).await;
    let mut stack = match stop
        .run_until_cancelled(Box::pin(Stack::start(&args, &data)))
        .await
    {
        Some(started) => started?,
        None => return Ok(()),
    };
    let ended = match stack.tell(&args, &data).await {
        Ok(()) => stack.look_after(&args, &stop).await,
        Err(error) => Err(error),
    };
    forget_ready_file(&args).await;
    tell::progress("stopping");
    stack.stop().await;
    ended
}

/// A script that waits for the file must not find an old one.
async fn forget_ready_file(args: &DevArgs) {
    if let Some(path) = &args.ready_file
        && let Err(error) = tokio::fs::remove_file(path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(error = %chain(&error), "the ready file could not be removed");
    }
}

fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

/// One `confab dev` a data folder: a second one would start Postgres over the same files.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_taken) => bail!(
            "another `confab dev` uses {}; give this one --data-dir",
            data.display()
        ),
    }
}

/// Ports that were free at the first start, kept so that printed lines stay good.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ports {
    nats: u16,
    postgres: u16,
    gateways: Vec<u16>,
    workers: Vec<u16>,
}

impl Ports {
    async fn of(args: &DevArgs, data: &Path) -> anyhow::Result<Self> {
        let path = data.join("ports.json");
        let kept = tokio::fs::read(&path)
            .await
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        let Self {
            nats,
            postgres,
            gateways,
            workers,
        } = kept.unwrap_or_default();
        let mut taken = Vec::new();
        let mut usable = |kept: u16| usable(kept, &mut taken);
        let mut several = |kept: &[u16], count: usize| {
            (0..count)
                .map(|n| usable(kept.get(n).copied().unwrap_or_default()))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let servers = several(&[nats, postgres], 2)?;
        let ports = Self {
            nats: servers.first().copied().unwrap_or_default(),
            postgres: servers.last().copied().unwrap_or_default(),
            gateways: several(&gateways, args.gateways)?,
            workers: several(&workers, args.workers)?,
        };
        tokio::fs::write(&path, serde_json::to_vec_pretty(&ports)?).await?;
        Ok(ports)
    }
}

/// The kept port while nobody else has taken it, else another one; each only once.
fn usable(kept: u16, taken: &mut Vec<u16>) -> anyhow::Result<u16> {
    let mut port = kept;
    while port == 0 || taken.contains(&port) || !is_free(port) {
        port = free_port()?;
    }
    taken.push(port);
    Ok(port)
}

/// Everything that was started.
struct Stack {
    nats: Nats,
    postgres: Postgres,
    database: String,
    workers: Vec<Service>,
    gateways: Vec<Service>,
    key: confab_auth::mint::Key,
    drain_delay: u64,
    /// Origins of pages that may call.
    origins: String,
}

impl Stack {
    async fn start(args: &DevArgs, data: &Path) -> anyhow::Result<Self> {
        let programs = Programs::find(&args.tools_dir)?;
        let ports = Ports::of(args, data).await?;
        let key = key::read_or_make(data).await?;
        tell::progress("starting NATS and Postgres");
        let settings = NatsSettings {
            folder: data.join("nats"),
            port: ports.nats,
            monitor: None,
        };
        let nats = Nats::start(&programs, settings).await?;
        let settings = PostgresSettings {
            folder: data.join("postgres"),
            port: ports.postgres,
            durability: Durability::Disk,
        };
        let postgres = Postgres::start(&programs, settings).await?;
        let database = postgres.database("confab").await?;
        let mut stack = Self {
            nats,
            postgres,
            database,
            workers: Vec::new(),
            gateways: Vec::new(),
            key,
            drain_delay: args.drain_delay,
            origins: args.origins(),
        };
        tell::progress("bringing the schema up to date");
        stack.migrate(data).await?;
        tell::progress("starting workers and gateways");
        for (n, port) in ports.workers.iter().enumerate() {
            let launch = stack.launch(data, "worker", n, *port)?;
            stack.workers.push(Service::spawn(launch, *port)?);
        }
        for (n, port) in ports.gateways.iter().enumerate() {
            let launch = stack.launch(data, "gateway", n, *port)?;
            stack.gateways.push(Service::spawn(launch, *port)?);
        }
        for service in stack.workers.iter_mut().chain(&mut stack.gateways) {
            service.ready(READY_TIMEOUT).await?;
        }
        Ok(stack)
    }

    async fn migrate(&self, data: &Path) -> anyhow::Result<()> {
        let mut migration = Process::spawn(self.launch(data, "migrate", 0, 0)?)?;
        let status = migration.wait(READY_TIMEOUT).await?;
        if status.success() {
            Ok(())
        } else {
            bail!("the migration failed; see {}", migration.log().display())
        }
    }

    /// A process of this very binary. Only workers and migrations are told where the database is.
    fn launch(&self, data: &Path, role: &str, n: usize, port: u16) -> anyhow::Result<Launch> {
        let mut env = vec![
            ("CONFAB_NATS_URL".to_owned(), Some(self.nats.url())),
            (
                "CONFAB_DATABASE_URL".to_owned(),
                (role != "gateway").then(|| self.database.clone()),
            ),
            (
                "CONFAB_LISTEN".to_owned(),
                Some(format!("127.0.0.1:{port}")),
            ),
        ];
        if role == "gateway" {
            let public = key::public(data).display().to_string();
            env.push(("CONFAB_JWT_PUBLIC_KEY".to_owned(), Some(public)));
            env.push((
                "CONFAB_JWT_ISSUER".to_owned(),
                Some(key::TOKEN_ISSUER.to_owned()),
            ));
            env.push((
                "CONFAB_JWT_AUDIENCE".to_owned(),
                Some(key::TOKEN_AUDIENCE.to_owned()),
            ));
            // As `Settings::of_development`, which `confab token --check` takes.
            let on = || Some("true".to_owned());
            env.push(("CONFAB_JWT_TENANT_OPTIONAL".to_owned(), on()));
            env.push((
                "CONFAB_JWT_GRANTS".to_owned(),
                Some("read,write,admin".to_owned()),
            ));
            env.push(("CONFAB_EXPLAIN_REFUSALS".to_owned(), on()));
            env.push(("CONFAB_TRY_PAGE".to_owned(), on()));
            let origins = self.origins.clone();
            env.push(("CONFAB_CORS_ORIGINS".to_owned(), Some(origins)));
            let delay = self.drain_delay.to_string();
            env.push(("CONFAB_DRAIN_DELAY".to_owned(), Some(delay)));
        }
        Ok(Launch {
            name: format!("{role}-{n}"),
            program: std::env::current_exe()?,
            args: vec![role.to_owned()],
            env,
            log: data.join("logs").join(format!("{role}-{n}.log")),
        })
    }

    /// Writes the ready file, and prints how to try it.
    async fn tell(&self, args: &DevArgs, data: &Path) -> anyhow::Result<()> {
        self.write_ready_file(args).await?;
        let told = self.told()?;
        writeln!(
            std::io::stdout().lock(),
            "{}",
            told.lines(data, &std::env::current_exe()?)
        )?;
        Ok(())
    }

    async fn write_ready_file(&self, args: &DevArgs) -> anyhow::Result<()> {
        match &args.ready_file {
            Some(path) => tell::write(path, &self.told()?).await,
            None => Ok(()),
        }
    }

    fn told(&self) -> anyhow::Result<tell::StartedStack> {
        let now = OffsetDateTime::now_utc();
        let token = |user: &str| {
            Ok((
                user.to_owned(),
                self.key.mint(&key::claims(user, now, TOKEN_LIFETIME))?,
            ))
        };
        Ok(tell::StartedStack {
            gateways: self.gateways.iter().map(tell::Running::of).collect(),
            workers: self.workers.iter().map(tell::Running::of).collect(),
            nats: self.nats.url(),
            postgres: self.database.clone(),
            tokens: TOKEN_USERS
                .into_iter()
                .map(token)
                .collect::<anyhow::Result<_>>()?,
        })
    }

    /// Looks after what was started, until the stop.
    async fn look_after(&mut self, args: &DevArgs, stop: &CancellationToken) -> anyhow::Result<()> {
        while stop
            .run_until_cancelled(tokio::time::sleep(POLL_INTERVAL))
            .await
            .is_some()
        {
            if args.no_restart {
                continue;
            }
            match stop.run_until_cancelled(Box::pin(self.revive())).await {
                Some(Ok(true)) => self.write_ready_file(args).await?,
                Some(Ok(false)) => {}
                Some(Err(error)) => warn!(
                    error = format!("{error:#}"),
                    "what died could not be started yet"
                ),
                None => break,
            }
        }
        Ok(())
    }

    /// Starts again what died; says whether any process is another one now.
    async fn revive(&mut self) -> anyhow::Result<bool> {
        let mut revived = false;
        if self.nats.process().map_or(Ok(true), |process| {
            Ok::<_, anyhow::Error>(process.ended()?.is_some())
        })? {
            warn!("NATS died and is started again");
            tokio::time::sleep(RESTART_DELAY).await;
            self.nats.restart().await?;
        }
        if self.postgres.process().map_or(Ok(true), |process| {
            Ok::<_, anyhow::Error>(process.ended()?.is_some())
        })? {
            warn!("Postgres died and is started again");
            tokio::time::sleep(RESTART_DELAY).await;
            self.postgres.restart().await?;
        }
        for service in self.workers.iter_mut().chain(&mut self.gateways) {
            if let Some(status) = service.process_mut().ended()? {
                warn!(process = service.process().name(), %status, "a process died and is started again");
                tokio::time::sleep(RESTART_DELAY).await;
                service.respawn()?;
                let process = service.process();
                info!(
                    process = process.name(),
                    pid = process.id(),
                    "it was started again"
                );
                revived = true;
            }
        }
        Ok(revived)
    }

    /// Stops everything, clients of others first.
    async fn stop(&mut self) {
        for services in [&mut self.gateways, &mut self.workers] {
            let stops = services
                .iter_mut()
                .map(|service| service.process_mut().stop(STOP_TIMEOUT));
            for stopped in futures_util::future::join_all(stops).await {
                if let Err(error) = stopped {
                    warn!(error = %chain(&error), "a process did not stop well");
                }
            }
        }
        for stopped in [
            self.nats.stop(STOP_TIMEOUT).await,
            self.postgres.stop(STOP_TIMEOUT).await,
        ] {
            if let Err(error) = stopped {
                warn!(error = %chain(&error), "a server did not stop well");
            }
        }
        info!("everything was stopped");
    }
}
