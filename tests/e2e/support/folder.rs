//! A test's folder for data and logs, removed when the test passes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A cluster's folder. It stays where it is when the test fails.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one, named after the running test.
    pub(crate) fn of_test() -> Self {
        static FOLDER_COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDER_COUNT.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", "-");
        let folder = run().join(format!("{number}-{test}"));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("data and logs are kept: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The folder of this test process. What processes that are gone left there is removed first, but for the data and logs of
/// tests that failed lately.
pub(crate) fn run() -> &'static Path {
    static RUN_FOLDER: OnceLock<PathBuf> = OnceLock::new();
    RUN_FOLDER.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
        fs::create_dir_all(&all).unwrap();
        sweep(&all);
        let run = all.join(std::process::id().to_string());
        fs::create_dir_all(&run).unwrap();
        run
    })
}

fn sweep(all: &Path) {
    /// How long the logs of a failed test are kept.
    const LOG_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    for entry in fs::read_dir(all).unwrap() {
        let entry = entry.unwrap();
        let run = entry.path();
        if Path::new("/proc").join(entry.file_name()).exists() {
            continue;
        }
        remove(&run.join("postgres"));
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LOG_RETENTION));
        let is_empty = fs::read_dir(&run).is_ok_and(|mut tests| tests.next().is_none());
        if is_old || is_empty {
            remove(&run);
        }
    }
}

/// What cannot be removed is in nobody's way; another test process may have been faster.
fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            eprintln!("{} stays: {error}", folder.display());
        }
        Ok(()) | Err(_) => {}
    }
}
