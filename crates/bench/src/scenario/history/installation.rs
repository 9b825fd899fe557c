//! A confab over a database of a known size: kept for the next time where it takes long to make.

use std::path::Path;
use std::time::{Duration, Instant};

use confab_client::Http;
use nix::sys::statvfs::statvfs;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::output::Progress;
use crate::seed::{self, OF_EACH, Seed, fill, user_name};
use crate::stack::{Lock, Places, Servers, Stack, StackShape};

/// Grows when a seed of the same size is another than before.
const FORMAT_VERSION: u32 = 1;
/// Users that ask, at most: each with a token.
const MAX_ASKING_USERS: u64 = 512;
/// Says that the folder beside it is complete, and of what.
const MARKER_FILE: &str = "filled.json";

/// Bytes that an event takes on the disk while the database is made, its index entries and their sorting included; and those that are
/// needed however few there are: the log of what Postgres writes, above all.
const ROOM_OF_EACH: u64 = 1000;
const FREE_DISK_BYTES: u64 = 3 << 30;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    #[serde(rename = "filling")]
    seed: Seed,
}

/// A confab that knows what it holds.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(super) stack: Stack,
    pub(super) seed: Seed,
    askers: Vec<Asker>,
}

/// A user that asks.
#[derive(Debug)]
struct Asker {
    number: u64,
    http: Http,
}

/// Servers with a database that is filled so, and how long that took; one that was filled before is used again. One whose seed was
/// broken off is made anew.
pub(crate) async fn prepare(
    places: &Places,
    seed: Seed,
    progress: &Progress,
) -> Result<(Servers, Option<Duration>), Error> {
    let name = format!("history-{}-{}", seed.events, seed.conversations);
    let lock = Lock::take(places, &name)?;
    let folder = lock.folder.clone();
    let marker = Marker {
        version: FORMAT_VERSION,
        seed,
    };
    if read(&folder).is_some_and(|found| found == marker) {
        progress.say(format!("starting over {}", folder.display()));
        return Ok((Servers::start_kept(places, lock).await?, None));
    }
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(format!("remove {}", folder.display()))(error));
        }
        _ => {}
    }
    check_room(&places.data_dir, seed.events)?;
    let servers = Servers::start_kept(places, lock).await?;
    let began = Instant::now();
    fill(&servers.database, &seed, |what| progress.say(what)).await?;
    let took = began.elapsed();
    let path = folder.join(MARKER_FILE);
    std::fs::write(&path, serde_json::to_vec(&marker)?)
        .map_err(Error::io(format!("write {}", path.display())))?;
    Ok((servers, Some(took)))
}

/// Refuses what the disk has no room for, before hours of writing.
fn check_room(data: &Path, events: u64) -> Result<(), Error> {
    let disk = statvfs(data).map_err(|error| Error::Io {
        what: format!("look for room in {}", data.display()),
        source: error.into(),
    })?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let needed = events
        .saturating_mul(ROOM_OF_EACH)
        .saturating_add(FREE_DISK_BYTES);
    if needed <= free {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "{events} events need some {} GiB, and {} has {} free",
        needed >> 30,
        data.display(),
        free >> 30
    )))
}

fn read(folder: &Path) -> Option<Marker> {
    let text = std::fs::read(folder.join(MARKER_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Installation {
    /// One over a database that goes when it goes.
    pub(crate) async fn passing(places: &Places, seed: Seed) -> Result<Self, Error> {
        let servers = Servers::start(places).await?;
        fill(&servers.database, &seed, |_| ()).await?;
        Self::over(servers, seed).await
    }

    /// One over servers that hold what [`prepare`] has written.
    pub(crate) async fn over(servers: Servers, seed: Seed) -> Result<Self, Error> {
        let shape = StackShape {
            gateways: 1,
            workers: 1,
            ..StackShape::default()
        };
        let stack = Stack::over(servers, &shape).await?;
        let (urls, http) = (stack.urls(), Http::new("http://127.0.0.1", "")?);
        let users = seed.users();
        // Spread evenly over all users, so that their conversations are, too.
        let numbers =
            (0..MAX_ASKING_USERS.min(users)).map(|n| n * users / MAX_ASKING_USERS.min(users));
        let askers = numbers.zip(urls.iter().cycle()).map(|(number, url)| {
            let token = stack.tokens.mint(&user_name(number))?;
            let http = http.with(url, &token)?;
            Ok(Asker { number, http })
        });
        let askers = askers.collect::<Result<_, Error>>()?;
        Ok(Self {
            stack,
            seed,
            askers,
        })
    }

    /// Someone who asks, and one of its conversations: never the long one, which is not like the others.
    pub(super) fn any(&self) -> Result<(Http, u64), Error> {
        let mut random = rand::rng();
        let asker = self
            .askers
            .get(random.random_range(0..self.askers.len().max(1)));
        let asker = asker.ok_or_else(|| Error::Failed("nobody asks".to_owned()))?;
        let own = (0..).map(|n| (n + random.random_range(0..OF_EACH)) % OF_EACH);
        let mut own = own.map(|n| self.seed.conversation_of(asker.number, n));
        let one = own.find(|number| *number != 0).unwrap_or(1);
        Ok((asker.http.clone(), one))
    }

    /// A member of the long conversation.
    pub(super) fn of_the_long_one(&self) -> Result<Http, Error> {
        let first = self.askers.iter().find(|asker| asker.number == 0);
        let first = first.ok_or_else(|| Error::Failed("nobody asks".to_owned()))?;
        Ok(first.http.clone())
    }

    /// Reads the log and its key once, so that the system has them in memory as far as they fit: what was prepared another day is
    /// measured as what was prepared now.
    pub(crate) async fn warm(&self) -> Result<(), Error> {
        use sqlx::Connection as _;
        let mut postgres = sqlx::PgConnection::connect(&self.stack.servers.database).await?;
        for statement in [
            "select sum(octet_length(payload)) from events",
            "set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off; \
             select count(*) from (select conversation_id, seq from events order by conversation_id, seq) e",
        ] {
            sqlx::raw_sql(statement).execute(&mut postgres).await?;
        }
        Ok(postgres.close().await?)
    }

    /// Stops everything.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.stack.stop().await
    }
}

/// The id of a conversation by its number.
pub(super) use seed::conversation_id;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeding_beyond_free_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_room(folder.path(), 1 << 50).unwrap_err().to_string();
        assert!(error.contains(" events need some "), "{error}");
    }
}
