//! Folders of data: those that go with their servers, and those that are kept for the next time.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use tempfile::TempDir;

use super::Places;
use crate::Error;

/// Where servers have their data.
#[derive(Debug)]
#[expect(dead_code, reason = "what is held ends when it is dropped")]
pub(super) enum Folder {
    /// It goes with the servers.
    Passing(TempDir),
    /// It stays, and is no other's as long as the servers are there.
    Kept(Lock),
}

/// A folder of data that is kept, locked: only one bench works with it at a time.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) folder: PathBuf,
    // Locked as long as it is open.
    _file: File,
}

impl Lock {
    /// Locks the folder of this name, whether there is one or not; another bench's is an error.
    pub(crate) fn take(places: &Places, name: &str) -> Result<Self, Error> {
        let data = &places.data_dir;
        std::fs::create_dir_all(data).map_err(Error::io(format!("make {}", data.display())))?;
        let (folder, path) = (data.join(name), data.join(format!("{name}.lock")));
        let file = File::create(&path).map_err(Error::io(format!("make {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                folder,
                _file: file,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Failed(format!(
                "another bench works with {}",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => {
                Err(Error::io(format!("lock {}", path.display()))(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_folder_serves_one_bench_at_once() {
        let data = tempfile::tempdir().unwrap();
        let places = Places {
            tools_dir: PathBuf::new(),
            data_dir: data.path().join("data"),
            program: None,
        };
        let lock = Lock::take(&places, "kept").unwrap();
        assert_eq!(lock.folder, places.data_dir.join("kept"));
        let error = Lock::take(&places, "kept").unwrap_err().to_string();
        assert!(error.starts_with("another bench works with "), "{error}");
        let other = Lock::take(&places, "other").unwrap();
        drop((lock, other));
        drop(Lock::take(&places, "kept").unwrap());
    }
}
