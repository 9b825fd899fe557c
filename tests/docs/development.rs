//! Runs `confab dev` as a reader of the guide does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use confab_stack::{Launch, Process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long everything may take to be ready, and to stop.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct Development {
    process: Process,
    /// What `confab dev` wrote about itself.
    pub(crate) told: Value,
    folder: TempDir,
}

impl Development {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::with_prefix_in("guide-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let ready = folder.path().join("ready.json");
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
        let set = |name: &str, path: &Path| (name.to_owned(), Some(path.display().to_string()));
        let launch = Launch {
            name: "confab dev".to_owned(),
            program: program(),
            args: vec!["dev".to_owned()],
            env: vec![
                set("CONFAB_DEV_TOOLS_DIR", &tools),
                set("CONFAB_DEV_DATA_DIR", &folder.path().join("data")),
                set("CONFAB_DEV_READY_FILE", &ready),
            ],
            log: folder.path().join("dev.log"),
        };
        let mut process = Process::spawn(launch).unwrap();
        let until = Instant::now() + READY_TIMEOUT;
        let told = loop {
            if let Ok(told) = std::fs::read(&ready) {
                break serde_json::from_slice(&told).unwrap();
            }
            let ended = process.ended().unwrap();
            let log = || std::fs::read_to_string(process.log()).unwrap_or_default();
            assert!(ended.is_none(), "{ended:?}: {}", log());
            assert!(Instant::now() < until, "not ready in time: {}", log());
            sleep(POLL_INTERVAL).await;
        };
        Self {
            process,
            told,
            folder,
        }
    }

    /// What a terminal of the reader's has: the binary on its path, and the folder that `confab dev` keeps.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let folder = program().parent().unwrap().display().to_string();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = format!("{folder}:{}", path.display());
        let data = self.folder.path().join("data").display().to_string();
        vec![("PATH", path), ("CONFAB_DEV_DATA_DIR", data)]
    }

    pub(crate) async fn stop(mut self) {
        let status = self.process.stop(STOP_TIMEOUT).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_confab").into()
}
