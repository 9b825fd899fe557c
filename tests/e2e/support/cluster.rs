//! A cluster per test: NATS, a database, workers and gateways as processes.

use std::path::Path;
use std::time::Duration;

use confab_client::Http;
use confab_stack::{Launch, Nats, NatsSettings, Process, Proxy, Service, free_port};
use futures_util::future::join_all;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::folder::Folder;
use super::postgres::{Database, programs};
use super::tokens::{TOKEN_AUDIENCE, TOKEN_ISSUER};
use super::{Key, User, claims, eventually};

/// How long a process may take until it is ready, on a machine that runs other tests.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process may take to end when asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a worker that dies by its own hand may take to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a test wants.
pub(crate) struct Setup {
    pub(crate) gateways: usize,
    pub(crate) workers: usize,
    /// Variables of every gateway, over the usual ones; `None` takes one away.
    pub(crate) gateway_env: Vec<(&'static str, Option<String>)>,
    /// Variables of every worker, likewise.
    pub(crate) worker_env: Vec<(&'static str, Option<String>)>,
    /// A Postgres that the test may kill.
    pub(crate) own_postgres: bool,
    /// A Postgres of its own with a synchronous standby, found by a name that the test may lead elsewhere.
    pub(crate) standby: bool,
    /// Every gateway has a link of its own to NATS that the test may cut.
    pub(crate) links: bool,
    /// NATS tells on its monitoring pages what it knows of its clients.
    pub(crate) nats_pages: bool,
    /// More of the configuration of NATS.
    pub(crate) nats_config: String,
    /// Servers of one NATS cluster with the one that confab is connected to, which the test may kill.
    pub(crate) nats_peers: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            gateways: 2,
            workers: 2,
            gateway_env: Vec::new(),
            worker_env: Vec::new(),
            own_postgres: false,
            standby: false,
            links: false,
            nats_pages: false,
            nats_config: String::new(),
            nats_peers: 0,
        }
    }
}

/// A running confab. A test that passes must [`Cluster::end`] it, which looks for what it left behind.
pub(crate) struct Cluster {
    pub(crate) gateways: Vec<Service>,
    pub(crate) workers: Vec<Service>,
    pub(crate) nats: Nats,
    /// The other servers of its cluster, where the test asked for some.
    pub(crate) nats_peers: Vec<Nats>,
    /// The gateways' links to NATS, where the test asked for some.
    pub(crate) links: Vec<Proxy>,
    pub(crate) database: Database,
    /// The key that its tokens are signed with.
    pub(crate) key: Key,
    /// The test's own look into the store.
    pub(crate) store: PgPool,
    http: Http,
    ended: bool,
    // Behind the processes that write into it.
    folder: Folder,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = Folder::of_test();
        let (nats, nats_peers) = start_nats(folder.path(), &setup).await;
        let database = match (setup.own_postgres, setup.standby) {
            (_, true) => Database::with_standby(folder.path()).await,
            (true, false) => Database::own(folder.path()).await,
            (false, false) => Database::shared().await,
        };
        let key = Key::es256("test-key");
        let store = PgPoolOptions::new().max_connections(2);
        let mut cluster = Self {
            gateways: Vec::new(),
            workers: Vec::new(),
            links: Vec::new(),
            nats,
            nats_peers,
            store: store.connect_lazy(&database.url).unwrap(),
            http: Http::new("http://127.0.0.1:1", "").unwrap(),
            database,
            key,
            ended: false,
            folder,
        };
        cluster.spawn(setup).await;
        cluster.ready().await;
        cluster
    }

    async fn spawn(&mut self, setup: Setup) {
        for number in 0..setup.workers {
            let env = self.worker_env(&setup.worker_env);
            let worker = self.service("worker", number, env);
            self.workers.push(worker);
        }
        for number in 0..setup.gateways {
            let mut env = self.gateway_env(&setup.gateway_env);
            if setup.links {
                let nats = ([127, 0, 0, 1], self.nats.port()).into();
                let link = Proxy::start(nats).await.unwrap();
                let url = format!("nats://127.0.0.1:{}", link.port());
                env.push(("CONFAB_NATS_URL", Some(url)));
                self.links.push(link);
            }
            let gateway = self.service("gateway", number, env);
            self.gateways.push(gateway);
        }
    }

    /// Waits until every process that should run is ready.
    pub(crate) async fn ready(&mut self) {
        for service in self.workers.iter_mut().chain(&mut self.gateways) {
            let ready = service.ready(READY_TIMEOUT).await;
            ready.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// A user whose tokens this cluster takes.
    pub(crate) fn user(&self, name: &str) -> User {
        self.user_of(&claims(name))
    }

    /// A user with claims of the test's own making.
    pub(crate) fn user_of(&self, claims: &serde_json::Value) -> User {
        let id = claims["sub"].as_str().unwrap().parse().unwrap();
        let urls = self.gateways.iter().map(Service::url).collect();
        User::new(id, self.key.token(claims), urls, self.http.clone())
    }

    /// Begins one more worker, without waiting until it is ready, and gives its number.
    pub(crate) fn begin_worker(&mut self, env: &[(&'static str, Option<String>)]) -> usize {
        let number = self.workers.len();
        let worker = self.service("worker", number, self.worker_env(env));
        self.workers.push(worker);
        number
    }

    /// Begins a worker anew, killing it first where it still runs, and waits until it is ready.
    pub(crate) async fn restart_worker(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.respawn().unwrap();
        worker
            .ready(READY_TIMEOUT)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits for the death of a worker by its own hand, and says which one: `what` says why it should die.
    pub(crate) async fn worker_died(&mut self, what: &str) -> usize {
        use std::os::unix::process::ExitStatusExt as _;
        const ABORT_SIGNAL: i32 = 6;
        eventually(what, EXIT_TIMEOUT, async || {
            let mut ended = self
                .workers
                .iter_mut()
                .map(|worker| worker.process_mut().ended().unwrap());
            ended.position(|status| status.and_then(|status| status.signal()) == Some(ABORT_SIGNAL))
        })
        .await
    }

    /// Begins one more gateway, with variables of its own, and waits until it is ready.
    pub(crate) async fn add_gateway(&mut self, env: Vec<(&'static str, Option<String>)>) {
        let env = self.gateway_env(&env);
        let mut gateway = self.service("gateway", self.gateways.len(), env);
        let ready = gateway.ready(READY_TIMEOUT).await;
        ready.unwrap_or_else(|error| panic!("{error}"));
        self.gateways.push(gateway);
    }

    /// As [`Self::restart_worker`], of a gateway.
    pub(crate) async fn restart_gateway(&mut self, number: usize) {
        let gateway = &mut self.gateways[number];
        gateway.respawn().unwrap();
        gateway
            .ready(READY_TIMEOUT)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets NATS run on with another configuration beside what it has anyway.
    pub(crate) fn reconfigure_nats(&mut self, config: &str) {
        configure_nats(&self.folder.path().join("nats"), config);
        self.nats.reload().unwrap();
    }

    /// Stops everything orderly, and fails the test when something did not end well or is left over.
    pub(crate) async fn end(mut self) {
        self.store.close().await;
        let services = self.gateways.iter().chain(&self.workers);
        let mut pids: Vec<_> = services.map(|service| service.process().id()).collect();
        for services in [&mut self.gateways, &mut self.workers] {
            join_all(services.iter_mut().map(|one| end(one.process_mut()))).await;
        }
        for nats in std::iter::once(&mut self.nats).chain(&mut self.nats_peers) {
            pids.extend(nats.process().ok().map(|process| process.id()));
            nats.stop(STOP_TIMEOUT).await.unwrap();
        }
        self.ended = true;
        let alive: Vec<_> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
        assert!(alive.is_empty(), "left behind: processes {alive:?}");
        self.database.end().await;
        assert_no_panics(&self.folder.path().join("logs"));
    }

    fn worker_env(&self, more: &[(&'static str, Option<String>)]) -> Env {
        let mut env = vec![
            ("CONFAB_NATS_URL", Some(self.nats.url())),
            ("CONFAB_DATABASE_URL", Some(self.database.url.clone())),
        ];
        env.extend_from_slice(more);
        env
    }

    /// A gateway has no way to the database. Its hub has more than one shard, however few processors there are.
    fn gateway_env(&self, more: &[(&'static str, Option<String>)]) -> Env {
        let mut env = vec![
            ("CONFAB_NATS_URL", Some(self.nats.url())),
            ("CONFAB_DATABASE_URL", None),
            ("CONFAB_JWT_PUBLIC_KEY", Some(self.key.public_pem())),
            ("CONFAB_JWT_ISSUER", Some(TOKEN_ISSUER.to_owned())),
            ("CONFAB_JWT_AUDIENCE", Some(TOKEN_AUDIENCE.to_owned())),
            ("CONFAB_JWT_TENANT_OPTIONAL", Some("true".to_owned())),
            ("CONFAB_JWT_GRANTS", Some("read,write,admin".to_owned())),
            ("CONFAB_DRAIN_DELAY", Some("0".to_owned())),
            // Few users do here what many do elsewhere; tests of limits set their own.
            ("CONFAB_RATE_LIMIT", Some("off".to_owned())),
            ("CONFAB_USER_CONNECTIONS", Some("100000".to_owned())),
            ("CONFAB_HUB_SHARDS", Some(shards())),
        ];
        env.extend_from_slice(more);
        env
    }

    fn service(&self, role: &str, number: usize, mut env: Env) -> Service {
        let port = free_port().unwrap();
        env.insert(0, ("CONFAB_LISTEN", Some(format!("127.0.0.1:{port}"))));
        let launch = self.launch(role, &format!("{role}-{number}"), env);
        Service::spawn(launch, port).unwrap()
    }

    fn launch(&self, role: &str, name: &str, env: Env) -> Launch {
        let named = |(name, value): (&str, Option<String>)| (name.to_owned(), value);
        Launch {
            name: name.to_owned(),
            program: env!("CARGO_BIN_EXE_confab").into(),
            args: vec![role.to_owned()],
            env: env.into_iter().map(named).collect(),
            log: self.folder.path().join("logs").join(format!("{name}.log")),
        }
    }
}

/// NATS, and the other servers of its cluster.
async fn start_nats(folder: &Path, setup: &Setup) -> (Nats, Vec<Nats>) {
    let routes: Vec<u16> = (0..=setup.nats_peers)
        .map(|_| free_port().unwrap())
        .collect();
    let mut all = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let name = if number == 0 {
            "nats".to_owned()
        } else {
            format!("nats-{number}")
        };
        let settings = NatsSettings {
            folder: folder.join(name),
            port: free_port().unwrap(),
            monitor: setup.nats_pages.then(|| free_port().unwrap()),
        };
        let mut config = setup.nats_config.clone();
        if setup.nats_peers > 0 {
            let routes: Vec<_> = routes
                .iter()
                .map(|port| format!("\"nats://127.0.0.1:{port}\""))
                .collect();
            let routes = routes.join(", ");
            let cluster = format!(
                "cluster {{ name: tests, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n"
            );
            config.push_str(&cluster);
        }
        configure_nats(&settings.folder, &config);
        let nats = Nats::start(&programs(), settings).await;
        all.push(nats.unwrap_or_else(|error| panic!("{error}")));
    }
    let nats = all.remove(0);
    (nats, all)
}

/// Writes more of the configuration of a NATS server, for its next start or when it is told to read it again.
fn configure_nats(folder: &Path, config: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("extra.conf"), config).unwrap();
}

type Env = Vec<(&'static str, Option<String>)>;

impl Drop for Cluster {
    fn drop(&mut self) {
        let passed = !std::thread::panicking();
        assert!(!passed || self.ended, "the test did not end its cluster");
    }
}

/// What the test has killed is gone already; what ended otherwise ended by itself, which no process may.
async fn end(process: &mut Process) {
    use std::os::unix::process::ExitStatusExt as _;
    const KILL_SIGNAL: i32 = 9;
    let name = process.name().to_owned();
    let status = match process.ended().unwrap() {
        Some(status) if status.signal() == Some(KILL_SIGNAL) => return,
        Some(status) => panic!("{name} ended by itself: {status}"),
        None => process
            .stop(STOP_TIMEOUT)
            .await
            .unwrap_or_else(|error| panic!("{error}")),
    };
    assert!(status.success(), "{name} ended with {status}");
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn assert_no_panics(logs: &Path) {
    for entry in std::fs::read_dir(logs).unwrap() {
        let path = entry.unwrap().path();
        let log = std::fs::read(&path).unwrap();
        let log = String::from_utf8_lossy(&log);
        let panicked = log.lines().find(|line| line.contains("panicked at"));
        assert_eq!(panicked, None, "in {}", path.display());
    }
}

/// Shards of each gateway's hub: two, or as many as `CONFAB_TEST_SHARDS` says.
fn shards() -> String {
    let asked = std::env::var_os("CONFAB_TEST_SHARDS");
    asked.map_or_else(|| "2".to_owned(), |asked| asked.into_string().unwrap())
}
