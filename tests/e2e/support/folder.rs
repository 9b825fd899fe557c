//! Where a test keeps its servers' data and logs: below the target folder, removed when the test has passed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cluster's folder. It stays where it is when the test fails.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one, named after the running test.
    pub(crate) fn of_test() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
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

/// The folder of this test process. What processes that are gone left there is removed first, but for failed tests' logs of
/// the last one.
pub(crate) fn run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
        fs::create_dir_all(&all).unwrap();
        sweep(&all);
        let run = all.join(std::process::id().to_string());
        fs::create_dir_all(&run).unwrap();
        run
    })
}

fn sweep(all: &Path) {
    let mut gone: Vec<_> = fs::read_dir(all)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let alive = Path::new("/proc").join(entry.file_name()).exists();
            let changed = entry.metadata().ok()?.modified().ok()?;
            (!alive).then(|| (changed, entry.path()))
        })
        .collect();
    gone.sort();
    let last = gone.pop();
    for (_, folder) in gone {
        remove(&folder);
    }
    if let Some((_, folder)) = last {
        remove(&folder.join("postgres"));
    }
}

/// What cannot be removed, such as the data of another account, is in nobody's way.
fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        eprintln!("{} stays: {error}", folder.display());
    }
}
