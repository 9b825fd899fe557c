//! The bucket of the sessions' records: read, written by revision, made again when it is missing.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, LastRawMessageErrorKind, StorageType, Stream,
};
use confab_protocol::ids::SessionId;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tracing::info;

use super::codec::{decode, encode};
use super::{Entry, Record};
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects::SESSIONS_BUCKET;

/// NATS 2.15 allows 1,000 consumers unless the stream says another number; whoever looks with the nats CLI takes one.
const MAX_CONSUMERS: i32 = 1_000;
/// How long a read or a write of one record may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Records read at once for a list.
const READING: usize = 32;

/// The bucket of the sessions' records. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Bucket {
    bus: Bus,
    max_age: Duration,
}

/// What the bucket holds under a session's key.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Nothing that can be read: deleted by hand, or no record of this version.
    Unreadable {
        /// By which it is written over.
        revision: u64,
        /// Whether it was deleted, and is no garbage.
        deleted: bool,
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

    /// By which it is written over; 0 where nothing is.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Unreadable { revision, .. } | Self::Entry { revision, .. } => *revision,
        }
    }
}

/// What became of a write.
#[derive(Debug)]
pub enum Put {
    /// It stands, under this revision.
    Stored(u64),
    /// Another revision stands there.
    Refused,
    /// Nobody knows: it may stand or not.
    Unknown(BusError),
}

/// The stream below the bucket, as NATS clients make it (NATS ADR-8).
fn config(bus: &Bus, max_age: Duration) -> Config {
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
        max_bytes: -1,
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

fn found(message: &StreamMessage) -> Found {
    let revision = message.sequence;
    match decode(&message.payload) {
        Some(entry) => Found::Entry { entry, revision },
        None => Found::Unreadable {
            revision,
            deleted: message.headers.get("KV-Operation").is_some(),
        },
    }
}

impl Bucket {
    /// The bucket for a resume window: a record that is put again every third of it outlives it by that much.
    #[must_use]
    pub fn new(bus: Bus, window: Duration) -> Self {
        Self {
            bus,
            max_age: window + window / 3 * 2,
        }
    }

    /// When the bucket was made, which is now where there was none: another time is another bucket. One that keeps records
    /// for less than the resume window needs is set to keep them longer.
    ///
    /// # Errors
    /// When JetStream is away or refuses.
    pub async fn provision(&self) -> Result<OffsetDateTime, BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let wanted = config(&self.bus, self.max_age);
        let stream = self
            .bus
            .jetstream
            .get_or_create_stream(&wanted)
            .await
            .map_err(BusError::nats("provision the bucket of sessions"))?;
        let info = stream.cached_info();
        let kept = info.config.max_age;
        if !kept.is_zero() && kept < self.max_age {
            info!(?kept, wanted = ?self.max_age, "the bucket of sessions is set to keep them longer");
            let longer = Config {
                max_age: self.max_age,
                ..info.config.clone()
            };
            let updated = self.bus.jetstream.update_stream(longer).await;
            updated.map_err(BusError::nats("set the age of the bucket of sessions"))?;
        }
        Ok(info.created)
    }

    /// What any replica holds of a session: it may lag.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when nobody answers for the bucket; else when JetStream is away.
    pub async fn get(&self, session: SessionId) -> Result<Found, BusError> {
        let stream = self.stream().await?;
        let reading = stream.direct_get_last_for_subject(subject(session));
        let read = tokio::time::timeout(PATIENCE, reading)
            .await
            .map_err(|_late| BusError::Timeout)?;
        match read {
            Ok(message) => Ok(found(&message)),
            Err(error) => match error.kind() {
                DirectGetErrorKind::NotFound => Ok(Found::Absent),
                DirectGetErrorKind::TimedOut => Err(BusError::Timeout),
                _ => Err(BusError::nats("read a record")(error)),
            },
        }
    }

    /// What the bucket's leader holds of a session.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when there is no bucket; else when JetStream is away.
    pub async fn get_from_leader(&self, session: SessionId) -> Result<Found, BusError> {
        let stream = self.stream().await?;
        let subject = subject(session);
        let reading = stream.get_last_raw_message_by_subject(&subject);
        let read = tokio::time::timeout(PATIENCE, reading)
            .await
            .map_err(|_late| BusError::Timeout)?;
        match read {
            Ok(message) => Ok(found(&message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(Found::Absent),
                LastRawMessageErrorKind::JetStream(answer) => match answer.error_code() {
                    ErrorCode::NO_MESSAGE_FOUND => Ok(Found::Absent),
                    ErrorCode::STREAM_NOT_FOUND => Err(BusError::NoStream),
                    _ => Err(BusError::nats("read a record from the leader")(error)),
                },
                _ => Err(BusError::nats("read a record from the leader")(error)),
            },
        }
    }

    /// Writes over what stands under this revision; 0 means that nothing may stand there.
    pub async fn put(&self, session: SessionId, entry: &Entry, revision: u64) -> Put {
        let writing = tokio::time::timeout(PATIENCE, self.try_put(session, entry, revision));
        match writing.await {
            Ok(Ok(put)) => put,
            Ok(Err(error)) => Put::Unknown(error),
            Err(_late) => Put::Unknown(BusError::Timeout),
        }
    }

    async fn try_put(
        &self,
        session: SessionId,
        entry: &Entry,
        revision: u64,
    ) -> Result<Put, BusError> {
        if !self.bus.is_connected() {
            return Err(BusError::Disconnected);
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            revision.to_string().as_str(),
        );
        let publishing =
            self.bus
                .jetstream
                .publish_with_headers(subject(session), headers, encode(entry)?);
        let acknowledged = match publishing.await {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(stored) => Ok(Put::Stored(stored.sequence)),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence => Ok(Put::Refused),
                PublishErrorKind::StreamNotFound => Err(BusError::NoStream),
                PublishErrorKind::TimedOut => Err(BusError::Timeout),
                _ => Err(BusError::nats("write a record")(error)),
            },
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
        let mut read = std::pin::pin!(read.buffer_unordered(READING));
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
