use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use crate::{Error, Launch};

/// Opens the password file and the data folder while it is root, leaves whatever folder root was in, and becomes
/// the rest of its arguments: `setpriv`, which becomes the server.
const HAND_OVER: &str = r#"exec 8<"$1" 9<"$2"; shift 2; cd /; exec "$@""#;

/// Whom Postgres runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever started it.
    Own,
    /// Started by root: another user.
    Lowered { uid: u32, gid: u32 },
}

/// The paths by which a server finds what is its own, and the way to run it.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) password: String,
    pub(super) data: String,
    /// What comes before the server's own program.
    before: Vec<String>,
}

impl Account {
    /// For data that is there, its owner; else `postgres` or `nobody` when this is root.
    pub(super) fn of(data: &Path) -> Result<Self, Error> {
        let me = Uid::effective();
        let owner = fs::metadata(data).ok().map(|data| (data.uid(), data.gid()));
        match owner {
            Some((uid, _)) if uid == me.as_raw() && !me.is_root() => Ok(Self::Own),
            Some((uid, gid)) if me.is_root() && uid != 0 => Ok(Self::Lowered { uid, gid }),
            Some((uid, _)) => Err(Error::Misuse(format!(
                "{} belongs to user {uid}: run as that user (as root when Postgres was started by root), or remove it",
                data.display()
            ))),
            None if me.is_root() => Self::unprivileged(),
            None => Ok(Self::Own),
        }
    }

    fn unprivileged() -> Result<Self, Error> {
        let known = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten());
        let user = known.ok_or(Error::Missing {
            wanted: "user `postgres` or `nobody`",
            advice: "Postgres does not run as root: make one of them, or run as a plain user",
        })?;
        Ok(Self::Lowered {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
    }

    /// Makes a file or folder this account's, and nobody else's to read.
    pub(super) fn give(self, path: &Path) -> Result<(), Error> {
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(private))
            .and_then(|()| match self {
                Self::Own => Ok(()),
                Self::Lowered { uid, gid } => chown(path, Some(uid), Some(gid)),
            })
            .map_err(Error::io(format!("give {} to Postgres", path.display())))
    }

    /// Hands over a file and a folder.
    pub(super) fn handed(self, password: &Path, data: &Path) -> Handed {
        let (password, data) = (password.display().to_string(), data.display().to_string());
        let Self::Lowered { .. } = self else {
            return Handed {
                password,
                data,
                before: Vec::new(),
            };
        };
        let open = ["/bin/sh", "-c", HAND_OVER, "sh"].map(str::to_owned);
        let before = open
            .into_iter()
            .chain([password, data])
            .chain(self.prefix())
            .collect();
        Handed {
            password: "/proc/self/fd/8".to_owned(),
            data: "/proc/self/fd/9".to_owned(),
            before,
        }
    }

    /// Returns what makes a command run as this account.
    pub(super) fn prefix(self) -> Vec<String> {
        match self {
            Self::Own => Vec::new(),
            Self::Lowered { uid, gid } => {
                let user = [format!("--reuid={uid}"), format!("--regid={gid}")];
                let rest = ["--clear-groups", "--"].map(str::to_owned);
                ["setpriv".to_owned()]
                    .into_iter()
                    .chain(user)
                    .chain(rest)
                    .collect()
            }
        }
    }
}

impl Handed {
    /// Returns how to run one of Postgres' programs.
    pub(super) fn launch(&self, program: PathBuf, args: Vec<String>, log: PathBuf) -> Launch {
        let name = program
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let words = self
            .before
            .iter()
            .cloned()
            .chain([program.display().to_string()])
            .chain(args);
        let mut words = words.collect::<Vec<_>>().into_iter();
        let program = words.next().map(PathBuf::from).unwrap_or_default();
        // Messages in English are what `is_held` reads.
        let env = vec![
            ("LC_ALL".to_owned(), Some("C".to_owned())),
            ("PGDATA".to_owned(), None),
        ];
        Launch {
            name,
            program,
            args: words.collect(),
            env,
            log,
        }
    }
}
