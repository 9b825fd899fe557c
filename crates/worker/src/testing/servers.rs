//! The servers that tests start.

use std::fs;
use std::path::{Path, PathBuf};

use confab_stack::{Durability, Postgres, PostgresSettings, Programs, free_port};
use tokio::sync::OnceCell;

/// It ends with this process: who watches it sees our pipe close.
pub(super) async fn server() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    SERVER.get_or_init(start).await
}

/// The servers' programs.
pub(crate) fn programs() -> Programs {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Programs::find(&checkout.join(".confab/tools")).unwrap()
}

async fn start() -> Postgres {
    let settings = PostgresSettings {
        folder: folder(),
        port: free_port().unwrap(),
        durability: durability(),
    };
    let started = Postgres::start(&programs(), settings).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// No test ends the machine. With full counts, commits take as long as a disk makes them.
pub(crate) fn durability() -> Durability {
    match super::is_soak() {
        true => Durability::Disk,
        false => Durability::Processes,
    }
}

/// A folder of this process below the target folder. Those of processes that are gone are removed first.
fn folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let all = target.join("tmp/worker");
    fs::create_dir_all(&all).unwrap();
    for entry in fs::read_dir(&all).unwrap() {
        let entry = entry.unwrap();
        let lives = Path::new("/proc").join(entry.file_name()).exists();
        if !lives && let Err(error) = fs::remove_dir_all(entry.path()) {
            eprintln!("{} stays: {error}", entry.path().display());
        }
    }
    all.join(std::process::id().to_string())
}
