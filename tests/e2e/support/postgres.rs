//! One Postgres per test process with a database per test, or a server of the test's own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_stack::{
    Durability, Launch, Postgres, PostgresSettings, Process, Programs, Proxy, free_port,
};
use tokio::sync::OnceCell;

use super::folder;
use super::wait::is_soak;

/// How long a server may take to end when asked.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the tables may take to be made, on a machine that runs other tests.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// The database of which others are copies, in the shared server.
const MIGRATED_DATABASE: &str = "migrated";

/// The programs that set-up has found or installed.
pub(crate) fn programs() -> Programs {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Programs::find(&checkout.join(".confab/tools")).unwrap()
}

/// A test's database.
pub(crate) struct Database {
    pub(crate) url: String,
    name: String,
    own: Option<Postgres>,
    failover: Option<Failover>,
}

/// A synchronous standby of a test's own server, and the name by which workers find whichever is the primary.
pub(crate) struct Failover {
    pub(crate) standby: Postgres,
    pub(crate) name: Proxy,
    primary: u16,
}

impl Failover {
    /// The name leads to the standby; present connections stay where they are.
    pub(crate) fn lead_to_standby(&self) {
        self.name
            .lead_to(([127, 0, 0, 1], self.standby.port()).into());
    }

    /// The name leads to the server that was the primary at first.
    pub(crate) fn lead_to_first(&self) {
        self.name.lead_to(([127, 0, 0, 1], self.primary).into());
    }
}

impl Database {
    /// In the shared server: a copy of one that was migrated.
    pub(crate) async fn shared() -> Self {
        static DATABASE_COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", DATABASE_COUNT.fetch_add(1, Ordering::Relaxed));
        let server = server().await;
        // Copied by files, it takes a quarter of what the log of each page does.
        let create =
            format!("CREATE DATABASE {name} TEMPLATE {MIGRATED_DATABASE} STRATEGY FILE_COPY");
        server.sql("postgres", &create).await.unwrap();
        Self {
            url: server.url(&name),
            name,
            own: None,
            failover: None,
        }
    }

    /// In a server of its own.
    pub(crate) async fn own(folder: &Path) -> Self {
        let postgres = start(&folder.join("postgres")).await;
        let name = "confab".to_owned();
        let url = postgres.database(&name).await.unwrap();
        migrate(&url, &folder.join("logs")).await;
        Self {
            url,
            name,
            own: Some(postgres),
            failover: None,
        }
    }

    /// In a server of its own with a synchronous standby, found by a name that the test may lead elsewhere.
    pub(crate) async fn with_standby(folder: &Path) -> Self {
        let mut database = Self::own(folder).await;
        let primary = database.server();
        let (port, settings) = (
            primary.port(),
            PostgresSettings {
                folder: folder.join("standby"),
                port: free_port().unwrap(),
                durability: durability(),
            },
        );
        let standby = primary.standby(&programs(), settings).await;
        let standby = standby.unwrap_or_else(|error| panic!("{error}"));
        primary.commit_on_standby().await.unwrap();
        let name = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
        let named = format!(":{}/", name.port());
        database.url = database.url.replace(&format!(":{port}/"), &named);
        database.failover = Some(Failover {
            standby,
            name,
            primary: port,
        });
        database
    }

    /// The test's standby, and the name.
    ///
    /// # Panics
    /// When the test's set-up did not ask for one.
    pub(crate) fn failover(&self) -> &Failover {
        self.failover.as_ref().expect("Setup::standby")
    }

    /// The test's own server, to kill, pause and restart.
    ///
    /// # Panics
    /// When the test's set-up did not ask for one.
    pub(crate) fn server(&mut self) -> &mut Postgres {
        self.own.as_mut().expect("Setup::own_postgres")
    }

    /// Takes it away.
    pub(crate) async fn end(&mut self) {
        if let Some(failover) = &mut self.failover {
            failover.standby.stop(STOP_TIMEOUT).await.unwrap();
        }
        match &mut self.own {
            Some(own) => own.stop(STOP_TIMEOUT).await.unwrap(),
            None => {
                let drop = format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name);
                server().await.sql("postgres", &drop).await.unwrap();
            }
        }
    }
}

/// It ends with this process: who watches it sees our pipe close.
async fn server() -> &'static Postgres {
    static SHARED_SERVER: OnceCell<Postgres> = OnceCell::const_new();
    let folder = folder::run().join("postgres");
    let begin = async || {
        let server = start(&folder).await;
        let url = server.database(MIGRATED_DATABASE).await.unwrap();
        migrate(&url, &folder).await;
        server
    };
    SHARED_SERVER.get_or_init(begin).await
}

/// Makes the tables, as an operator does.
async fn migrate(url: &str, logs: &Path) {
    let launch = Launch {
        name: "migrate".to_owned(),
        program: env!("CARGO_BIN_EXE_confab").into(),
        args: vec!["migrate".to_owned()],
        env: vec![("CONFAB_DATABASE_URL".to_owned(), Some(url.to_owned()))],
        log: logs.join("migrate.log"),
    };
    let mut migration = Process::spawn(launch).unwrap();
    let status = migration.wait(MIGRATION_TIMEOUT).await.unwrap();
    let log = std::fs::read_to_string(migration.log()).unwrap();
    assert!(status.success(), "migrate ended with {status}:\n{log}");
}

async fn start(folder: &Path) -> Postgres {
    let settings = PostgresSettings {
        folder: folder.to_owned(),
        port: free_port().unwrap(),
        durability: durability(),
    };
    let started = Postgres::start(&programs(), settings).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// No test ends the machine. With full counts, waits are as long as a disk makes them.
fn durability() -> Durability {
    match is_soak() {
        true => Durability::Disk,
        false => Durability::Processes,
    }
}
