//! The streams, made or adopted by whoever comes first.

use std::error::Error as _;
use std::time::Duration;

use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use confab_protocol::ids::EventId;
use time::OffsetDateTime;

use crate::connection::{Bus, Settings};
use crate::error::BusError;
use crate::subjects::{EVENTS_FILTER, EVENTS_STREAM, api_of};

/// The stream of events, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// When it was made: another time is another stream, whatever its sequences.
    pub created: OffsetDateTime,
    /// The lowest sequence still there; `last + 1` when it is empty.
    pub first: u64,
    /// The highest sequence ever given.
    pub last: u64,
    /// How many messages are there.
    pub messages: u64,
}

impl From<&Info> for StreamState {
    fn from(info: &Info) -> Self {
        let state = &info.state;
        Self {
            created: info.created,
            first: state
                .first_sequence
                .max(u64::from(state.last_sequence == 0)),
            last: state.last_sequence,
            messages: state.messages,
        }
    }
}

/// Time for which JetStream remembers message ids: its own default, said explicitly because the relay counts on it.
const DEDUPE_WINDOW: Duration = Duration::from_secs(120);
/// NATS 2.15 allows 1,000 consumers unless the stream says another number; a gateway takes one.
const MAX_CONSUMERS: i32 = 20_000;

fn events_config(settings: &Settings) -> Config {
    Config {
        name: EVENTS_STREAM.to_owned(),
        description: Some(
            "confab: every event of every conversation, in commit order a conversation".to_owned(),
        ),
        subjects: vec![EVENTS_FILTER.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age: Duration::from_secs(settings.events_max_age),
        max_bytes: settings.events_max_bytes,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: MAX_CONSUMERS,
        duplicate_window: DEDUPE_WINDOW.min(Duration::from_secs(settings.events_max_age)),
        num_replicas: settings.nats_replicas,
        ..Config::default()
    }
}

impl Bus {
    /// Makes the stream of events where there is none. One that is there is left as its operator has set it.
    ///
    /// # Errors
    /// When JetStream is away or refuses.
    pub async fn provision(&self) -> Result<StreamState, BusError> {
        let stream = self
            .jetstream
            .get_or_create_stream(events_config(&self.settings))
            .await
            .map_err(BusError::nats("provision the stream of events"))?;
        Ok(StreamState::from(stream.cached_info()))
    }

    /// The stream's state, asked of its leader.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when it does not exist; else when JetStream is away.
    pub async fn stream_state(&self) -> Result<StreamState, BusError> {
        Ok(StreamState::from(&self.stream_info().await?))
    }

    /// All that the stream's leader says of it; fails as [`Self::stream_state`].
    pub(crate) async fn stream_info(&self) -> Result<Info, BusError> {
        match self.events().await?.get_info().await {
            Ok(info) => Ok(info),
            Err(error) => {
                let answer = error
                    .source()
                    .and_then(|source| source.downcast_ref::<jetstream::Error>());
                Err(
                    match (answer.map(jetstream::Error::error_code), error.kind()) {
                        (Some(ErrorCode::STREAM_NOT_FOUND), _) => BusError::NoStream,
                        (_, RequestErrorKind::TimedOut) => BusError::Timeout,
                        _ => BusError::nats("read the stream's state")(error),
                    },
                )
            }
        }
    }

    /// The id of the event at a sequence of the stream, asked of its leader; none when nothing is there.
    ///
    /// # Errors
    /// When JetStream is away.
    pub async fn event_id_at(&self, stream_seq: u64) -> Result<Option<EventId>, BusError> {
        match self.events().await?.get_raw_message(stream_seq).await {
            Ok(message) => {
                let id = message.headers.get(async_nats::header::NATS_MESSAGE_ID);
                Ok(id.and_then(|id| id.as_str().parse().ok()))
            }
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(e)
                    if e.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Err(BusError::NoStream)
                }
                LastRawMessageErrorKind::JetStream(e)
                    if e.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
                {
                    Ok(None)
                }
                LastRawMessageErrorKind::JetStream(_)
                | LastRawMessageErrorKind::InvalidSubject
                | LastRawMessageErrorKind::Other => {
                    Err(BusError::nats("read a message of the stream")(error))
                }
            },
        }
    }

    /// Returns where a message for the subject of a bucket is published. Leaf nodes pass `$KV.>` on to no other domain: a domain takes it below the
    /// prefix of its API, and stores it under the subject itself.
    pub(crate) fn bucket_subject(&self, subject: String) -> String {
        match &self.settings.nats_jetstream_domain {
            Some(domain) => format!("{}.{subject}", api_of(domain)),
            None => subject,
        }
    }

    /// The stream, without asking anyone about it. Refused while disconnected: the library would queue the request.
    pub(crate) async fn events(&self) -> Result<Stream<()>, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.jetstream
            .get_stream_no_info(EVENTS_STREAM)
            .await
            .map_err(BusError::nats("name the stream of events"))
    }
}
