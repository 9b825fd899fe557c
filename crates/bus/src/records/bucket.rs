//! The bucket of the sessions' records: read, written by revision, made again when it is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType, Stream};
use confab_protocol::ids::SessionId;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::bases::{BaseName, Bases};
use super::{Entry, Ownership, Record};
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects::SESSIONS_BUCKET;

/// NATS 2.15 allows 1,000 consumers unless the stream says another number; whoever looks with the nats CLI takes one.
const MAX_CONSUMERS: i32 = 1_000;
/// Time that a read or a write of one record may take.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);
/// Records read at once for a list.
const MAX_CONCURRENT_READS: usize = 32;
/// The bucket's bound in bytes where nothing else is said.
const DEFAULT_MAX_BYTES: i64 = 512 << 20;
/// The part of the bucket, in percent, that new records may fill: the rest is for those that stand, so that they can be put again.
const MAX_NEW_PERCENT: u64 = 90;

mod reading;
mod writing;

pub use writing::Put;

/// The bucket of the sessions' records. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Bucket {
    bus: Bus,
    max_age: Duration,
    max_bytes: i64,
    bases: Arc<Bases>,
    /// Whether new records are refused.
    is_full: Arc<AtomicBool>,
}

/// The result of reading a session's key in the bucket.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Nothing that can be read: deleted by hand, or no record of this version.
    Unreadable {
        /// By which it is written over.
        revision: u64,
        /// True if it was deleted, and is no garbage.
        deleted: bool,
    },
    /// A record whose base is not there: it says who owns the session, and not from where it goes on.
    Baseless {
        /// The record without its positions.
        record: Box<Record>,
        /// By which it is written over.
        revision: u64,
    },
    /// This.
    Entry {
        /// What it says.
        entry: Entry,
        /// By which it is written over.
        revision: u64,
    },
}

impl Found {
    /// The record, where it is one that is live or may be resumed.
    #[must_use]
    pub const fn live(&self) -> Option<&Record> {
        match self {
            Self::Entry {
                entry: Entry::Live(record),
                ..
            } => Some(record),
            _ => None,
        }
    }

    /// Returns who owns the session, or owned it when it ended.
    #[must_use]
    pub fn standing(&self) -> Option<Ownership> {
        match self {
            Self::Absent | Self::Unreadable { .. } => None,
            Self::Baseless { record, .. } => Some(record.owner),
            Self::Entry { entry, .. } => Some(entry.standing()),
        }
    }

    /// By which it is written over; 0 where nothing is.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Unreadable { revision, .. }
            | Self::Baseless { revision, .. }
            | Self::Entry { revision, .. } => *revision,
        }
    }
}

/// The stream below the bucket, as NATS clients make it (NATS ADR-8).
fn config(bus: &Bus, max_age: Duration, max_bytes: i64) -> Config {
    Config {
        name: format!("KV_{SESSIONS_BUCKET}"),
        description: Some(
            "confab: which sessions may be resumed, and from where; gateways write it anew when it is lost"
                .to_owned(),
        ),
        subjects: vec![format!("$KV.{SESSIONS_BUCKET}.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age,
        max_bytes,
        max_messages: -1,
        max_messages_per_subject: 1,
        max_consumers: MAX_CONSUMERS,
        // Longer than the age of a message it cannot be.
        duplicate_window: Duration::from_secs(120).min(max_age),
        num_replicas: bus.settings.nats_replicas,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Config::default()
    }
}

fn subject(session: SessionId) -> String {
    format!("$KV.{SESSIONS_BUCKET}.{session}")
}

fn base_subject(name: BaseName) -> String {
    let (user, base) = (name.user.simple(), name.base.simple());
    format!("$KV.{SESSIONS_BUCKET}.base.{user}.{base}")
}

impl Bucket {
    /// The bucket for a resume window: a record that is put again every third of it outlives it by that much.
    #[must_use]
    pub fn new(bus: Bus, window: Duration) -> Self {
        Self {
            bus,
            max_age: window + window / 3 * 2,
            max_bytes: DEFAULT_MAX_BYTES,
            bases: Arc::new(Bases::new(window / 3)),
            is_full: Arc::default(),
        }
    }

    /// Of this size at most.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: i64) -> Self {
        Self { max_bytes, ..self }
    }

    /// The bucket may have lost what records have in common: it is put again with them.
    pub fn bases_lost(&self) {
        self.bases.lost(Instant::now());
    }

    /// Returns true if the bucket takes no new records.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// When the bucket was made, which is now where there was none: another time is another bucket. One that keeps records
    /// for less than the resume window needs is set to keep them longer, and one without a bound in bytes is given one.
    ///
    /// # Errors
    /// When JetStream is away or refuses.
    pub async fn provision(&self) -> Result<OffsetDateTime, BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let wanted = config(&self.bus, self.max_age, self.max_bytes);
        let stream = self
            .bus
            .jetstream
            .get_or_create_stream(&wanted)
            .await
            .map_err(BusError::nats("provision the bucket of sessions"))?;
        let info = stream.cached_info();
        let kept = info.config.max_age;
        let is_short = !kept.is_zero() && kept < self.max_age;
        let is_unbounded = info.config.max_bytes <= 0 && self.max_bytes > 0;
        if is_short || is_unbounded {
            let (wanted, bytes) = (self.max_age, self.max_bytes);
            info!(?kept, ?wanted, bytes, "the bucket of sessions is set anew");
            let mut config = info.config.clone();
            config.max_age = if is_short { wanted } else { kept };
            config.max_bytes = if is_unbounded {
                bytes
            } else {
                config.max_bytes
            };
            let updated = self.bus.jetstream.update_stream(config).await;
            updated.map_err(BusError::nats("set up the bucket of sessions"))?;
        }
        self.note_size(info);
        Ok(info.created)
    }

    fn note_size(&self, info: &Info) {
        let bound = u64::try_from(info.config.max_bytes).unwrap_or_default();
        let is_full = bound > 0 && info.state.bytes >= bound / 100 * MAX_NEW_PERCENT;
        if is_full != self.is_full.swap(is_full, Ordering::Relaxed) {
            let bytes = info.state.bytes;
            if is_full {
                warn!(
                    bytes,
                    bound, "the bucket of sessions is full: new sessions cannot be resumed"
                );
            } else {
                info!(bytes, bound, "the bucket of sessions has room again");
            }
        }
    }

    /// Every session of the bucket, at most so many: for those who look, it is slow.
    ///
    /// # Errors
    /// When there is no bucket, or JetStream is away.
    pub async fn list(&self, most: usize) -> Result<Vec<(SessionId, Found)>, BusError> {
        let what = "list the bucket of sessions";
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let store = self.bus.jetstream.get_key_value(SESSIONS_BUCKET).await;
        let keys = store
            .map_err(BusError::nats(what))?
            .keys()
            .await
            .map_err(BusError::nats(what))?;
        let sessions = keys
            .filter_map(async |key| key.ok()?.parse().ok())
            .take(most);
        let read = sessions.map(async |session| (session, self.get(session).await));
        let mut listed = Vec::new();
        let mut read = std::pin::pin!(read.buffer_unordered(MAX_CONCURRENT_READS));
        while let Some((session, found)) = read.next().await {
            match found? {
                Found::Absent => {}
                found => listed.push((session, found)),
            }
        }
        listed.sort_unstable_by_key(|(session, _)| *session);
        Ok(listed)
    }

    /// The stream, without asking anyone about it. Refused while disconnected: the library would queue the request.
    async fn stream(&self) -> Result<Stream<()>, BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.bus
            .jetstream
            .get_stream_no_info(format!("KV_{SESSIONS_BUCKET}"))
            .await
            .map_err(BusError::nats("name the bucket of sessions"))
    }
}

#[cfg(test)]
mod tests;
