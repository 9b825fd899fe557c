use std::path::Path;
use std::time::{Duration, Instant};

use confab_stack::{
    Durability, Error, Launch, Nats, NatsSettings, Postgres, PostgresSettings, Programs, free_port,
};

pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn programs() -> Result<Programs, Error> {
    Programs::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools"))
}

pub(crate) async fn start_nats(folder: &Path) -> Result<Nats, Error> {
    let settings = NatsSettings {
        folder: folder.join("nats"),
        port: free_port()?,
        monitor: Some(free_port()?),
    };
    Nats::start(&programs()?, settings).await
}

pub(crate) async fn start_postgres(folder: &Path) -> Result<Postgres, Error> {
    start_postgres_with(folder, Durability::Processes).await
}

pub(crate) async fn start_postgres_with(
    folder: &Path,
    durability: Durability,
) -> Result<Postgres, Error> {
    let settings = PostgresSettings {
        folder: folder.join("postgres"),
        port: free_port()?,
        durability,
    };
    Postgres::start(&programs()?, settings).await
}

pub(crate) fn shell(folder: &Path, script: &str) -> Launch {
    Launch {
        name: "script".to_owned(),
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        log: folder.join("script.log"),
    }
}

/// Returns true if the condition came true in time.
pub(crate) async fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + TEST_TIMEOUT;
    while Instant::now() < until {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Returns true if a process is there and not merely waiting to be reaped.
pub(crate) fn lives(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The letter of its state: T for a paused one.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
