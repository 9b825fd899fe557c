use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use confab_stack::{Error, Process};

use crate::support::{comes_true, lives, shell, start_nats, start_postgres, text};

/// Set for the process that this test starts, and kills, as the owner of servers.
const OWNER_VARIABLE: &str = "CONFAB_STACK_TEST_OWNER";

/// Starts one of each, a paused one too, says so, and waits to be killed.
async fn own(folder: PathBuf) -> Result<(), Error> {
    let mut nats = start_nats(&folder).await?;
    let mut postgres = start_postgres(&folder).await?;
    let running = Process::spawn(shell(&folder, "exec sleep 600"))?;
    let mut paused = Process::spawn(shell(&folder, "exec sleep 600"))?;
    paused.pause()?;
    let pids = [
        nats.process()?.id(),
        postgres.process()?.id(),
        running.id(),
        paused.id(),
    ];
    let line = pids.map(|pid| pid.to_string()).join(" ");
    std::fs::write(folder.join("pids"), line + "\n").map_err(|source| Error::Io {
        doing: "write".into(),
        source,
    })?;
    std::future::pending().await
}

fn pids(folder: &Path) -> Vec<u32> {
    let line = text(&folder.join("pids"));
    if line.ends_with('\n') {
        line.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    } else {
        Vec::new()
    }
}

#[tokio::test]
async fn servers_end_when_their_owner_is_killed() {
    if let Some(folder) = std::env::var_os(OWNER_VARIABLE) {
        own(folder.into()).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner::servers_end_when_their_owner_is_killed"])
        .env(OWNER_VARIABLE, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = comes_true(|| pids(folder.path()).len() == 4).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(started, "the owner did not start its servers");
    let all = pids(folder.path());
    assert!(
        comes_true(|| !all.iter().any(|pid| lives(*pid))).await,
        "left: {all:?}"
    );
}
