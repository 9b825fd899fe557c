//! One Postgres for all tests of this process, a database each; a test that kills Postgres has its own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_stack::{Postgres, PostgresSettings, Programs, free_port};
use tokio::sync::OnceCell;

use super::folder;

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
}

impl Database {
    /// In the shared server.
    pub(crate) async fn shared() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = server().await.database(&name).await.unwrap();
        let own = None;
        Self { url, name, own }
    }

    /// In a server of its own.
    pub(crate) async fn own(folder: &Path) -> Self {
        let postgres = start(&folder.join("postgres")).await;
        let name = "confab".to_owned();
        let url = postgres.database(&name).await.unwrap();
        Self {
            url,
            name,
            own: Some(postgres),
        }
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
        match &mut self.own {
            Some(own) => own.stop(Duration::from_secs(20)).await.unwrap(),
            None => {
                let drop = format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name);
                server().await.sql("postgres", &drop).await.unwrap();
            }
        }
    }
}

/// It ends with this process: who watches it sees our pipe close.
async fn server() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    let folder = folder::run().join("postgres");
    SERVER.get_or_init(async || start(&folder).await).await
}

async fn start(folder: &Path) -> Postgres {
    let folder = folder.to_owned();
    let port = free_port().unwrap();
    let started = Postgres::start(&programs(), PostgresSettings { folder, port }).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}
