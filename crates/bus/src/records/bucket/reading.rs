//! Reads records, each with the base that it names.

use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind};
use confab_protocol::ids::SessionId;
use uuid::Uuid;

use super::super::bases::{Base, BaseName, user_of};
use super::super::codec::decode;
use super::super::{Entry, Record};
use super::{Bucket, Found, RECORD_TIMEOUT, base_subject, subject};
use crate::error::BusError;

/// Who is asked.
#[derive(Debug, Clone, Copy)]
enum RecordSource {
    /// Any replica: it may lag.
    Any,
    Leader,
}

impl Bucket {
    /// Returns what any replica holds of a session: it may lag.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when nobody answers for the bucket; else when JetStream is away.
    pub async fn get(&self, session: SessionId) -> Result<Found, BusError> {
        self.find(session, RecordSource::Any).await
    }

    /// Returns what the bucket's leader holds of a session.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when there is no bucket; else when JetStream is away.
    pub async fn get_from_leader(&self, session: SessionId) -> Result<Found, BusError> {
        self.find(session, RecordSource::Leader).await
    }

    async fn find(&self, session: SessionId, source: RecordSource) -> Result<Found, BusError> {
        let Some(message) = self.message(subject(session), source).await? else {
            return Ok(Found::Absent);
        };
        let revision = message.sequence;
        let Some(stored) = decode(&message.payload) else {
            let deleted = message.headers.get("KV-Operation").is_some();
            return Ok(Found::Unreadable { revision, deleted });
        };
        let Some(base) = stored.base else {
            let entry = stored.entry;
            return Ok(Found::Entry { entry, revision });
        };
        let (entry, difference) = stored.apart();
        let Entry::Live(record) = entry else {
            return Ok(Found::Entry { entry, revision });
        };
        match self.base(&record, base, source).await? {
            Some(base) => {
                let positions = base.with(difference);
                let entry = Entry::Live(Box::new(Record {
                    positions,
                    ..*record
                }));
                Ok(Found::Entry { entry, revision })
            }
            None => Ok(Found::Baseless { record, revision }),
        }
    }

    /// The base of a record, where it is known or there.
    async fn base(
        &self,
        record: &Record,
        base: Uuid,
        source: RecordSource,
    ) -> Result<Option<Arc<Base>>, BusError> {
        let user = user_of(record);
        let name = BaseName { user, base };
        if let Some(known) = self.bases.find(name) {
            return Ok(Some(known));
        }
        let Some(message) = self.message(base_subject(name), source).await? else {
            return Ok(None);
        };
        let read = Base::decode(name.base, &message.payload);
        let now = Instant::now();
        Ok(read.map(|base| self.bases.read(name, base, message.payload, now)))
    }

    async fn message(
        &self,
        subject: String,
        source: RecordSource,
    ) -> Result<Option<StreamMessage>, BusError> {
        let reading = async {
            match source {
                RecordSource::Any => self.any(subject).await,
                RecordSource::Leader => self.leaders(subject).await,
            }
        };
        let read = tokio::time::timeout(RECORD_TIMEOUT, reading).await;
        read.map_err(|_late| BusError::Timeout)?
    }

    async fn any(&self, subject: String) -> Result<Option<StreamMessage>, BusError> {
        let stream = self.stream().await?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                DirectGetErrorKind::NotFound => Ok(None),
                DirectGetErrorKind::TimedOut => Err(BusError::Timeout),
                _ => Err(BusError::nats("read a record")(error)),
            },
        }
    }

    async fn leaders(&self, subject: String) -> Result<Option<StreamMessage>, BusError> {
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(answer) => match answer.error_code() {
                    ErrorCode::NO_MESSAGE_FOUND => Ok(None),
                    ErrorCode::STREAM_NOT_FOUND => Err(BusError::NoStream),
                    _ => Err(BusError::nats("read a record from the leader")(error)),
                },
                _ => Err(BusError::nats("read a record from the leader")(error)),
            },
        }
    }
}
