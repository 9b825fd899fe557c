//! Writes records: the base first that one names, then what differs from it.

use std::time::Instant;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use confab_protocol::ids::SessionId;

use super::super::bases::{BasePlan, MIN_POSITIONS, user_of};
use super::super::codec::{encode, encode_with};
use super::super::{Entry, Record};
use super::{Bucket, RECORD_TIMEOUT, base_subject, subject};
use crate::error::BusError;

/// What a message of the bucket takes beside its payload, about.
const MESSAGE_BYTES: usize = 128;

/// The result of a write.
#[derive(Debug)]
pub enum Put {
    /// It stands.
    Stored {
        /// Under this revision.
        revision: u64,
        /// The bytes that were written for it.
        bytes: usize,
    },
    /// Another revision stands there.
    Refused,
    /// The bucket has no room for what is new: nothing was written.
    Full,
    /// Nobody knows: it may stand or not.
    Unknown(BusError),
}

/// Why a message was not written.
enum WriteFailure {
    Refused,
    Full,
    Bus(BusError),
}

impl From<BusError> for WriteFailure {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<PublishError> for WriteFailure {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Self::Refused,
            PublishErrorKind::StreamNotFound => Self::Bus(BusError::NoStream),
            PublishErrorKind::TimedOut => Self::Bus(BusError::Timeout),
            _ => {
                let source = std::error::Error::source(&error);
                let answer = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
                match answer.map(jetstream::Error::error_code) {
                    Some(ErrorCode::STREAM_STORE_FAILED) => Self::Full,
                    _ => Self::Bus(BusError::nats("write a record")(error)),
                }
            }
        }
    }
}

impl Bucket {
    /// Writes over what stands under this revision; 0 means that nothing may stand there.
    pub async fn put(&self, session: SessionId, entry: &Entry, revision: u64) -> Put {
        let writing = tokio::time::timeout(RECORD_TIMEOUT, self.try_put(session, entry, revision));
        match writing.await {
            Ok(Ok((revision, bytes))) => Put::Stored { revision, bytes },
            Ok(Err(WriteFailure::Refused)) => Put::Refused,
            Ok(Err(WriteFailure::Full)) => Put::Full,
            Ok(Err(WriteFailure::Bus(error))) => Put::Unknown(error),
            Err(_late) => Put::Unknown(BusError::Timeout),
        }
    }

    async fn try_put(
        &self,
        session: SessionId,
        entry: &Entry,
        revision: u64,
    ) -> Result<(u64, usize), WriteFailure> {
        if !self.bus.is_connected() {
            return Err(WriteFailure::Bus(BusError::Disconnected));
        }
        let (record, base_bytes) = match entry {
            Entry::Live(_) if revision == 0 && self.is_full() => return Err(WriteFailure::Full),
            Entry::Live(record) if record.positions.len() >= MIN_POSITIONS => {
                self.put_base(record).await?
            }
            Entry::Live(_) | Entry::Ended { .. } => (encode(entry)?, 0),
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            revision.to_string().as_str(),
        );
        let bytes = base_bytes + record.len() + MESSAGE_BYTES;
        let subject = self.bus.bucket_subject(subject(session));
        let publishing = self
            .bus
            .jetstream
            .publish_with_headers(subject, headers, record);
        Ok((publishing.await?.await?.sequence, bytes))
    }

    /// Puts a record's base where that is due; gives the bytes of the record, and how many of the base were written.
    async fn put_base(&self, record: &Record) -> Result<(Bytes, usize), WriteFailure> {
        let plan = self
            .bases
            .plan(user_of(record), &record.positions, Instant::now())?;
        let BasePlan {
            name,
            difference,
            put,
            is_new,
        } = plan;
        let mut written = 0;
        if let Some(bytes) = put {
            if is_new && self.is_full() {
                return Err(WriteFailure::Full);
            }
            written = bytes.len() + MESSAGE_BYTES;
            let subject = self.bus.bucket_subject(base_subject(name));
            let publishing = self.bus.jetstream.publish(subject, bytes);
            publishing.await?.await?;
            self.bases.stored(name, Instant::now(), rand::random());
        }
        Ok((encode_with(record, name.base, difference)?, written))
    }

    /// Deletes a record that stands under this revision or a lesser one: nothing is left of it.
    ///
    /// # Errors
    /// When JetStream is away or refuses.
    pub async fn delete(&self, session: SessionId, revision: u64) -> Result<(), BusError> {
        let stream = self.stream().await?;
        let purge = stream
            .purge()
            .sequence(revision + 1)
            .filter(subject(session));
        let purged = tokio::time::timeout(RECORD_TIMEOUT, purge).await;
        let purged = purged.map_err(|_late| BusError::Timeout)?;
        purged.map_err(BusError::nats("delete a record"))?;
        Ok(())
    }
}
