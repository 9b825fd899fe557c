//! Revocations on their fast way to the gateways: a broadcast, and a bucket for those who missed it. The rows in Postgres
//! are the truth; whatever is lost here is read from a worker.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use bytes::Bytes;
use confab_protocol::ids::TenantId;
use confab_protocol::revocation::{Revocation, RevocationTarget, RevocationView};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::connection::{Bus, Settings};
use crate::error::BusError;
use crate::subjects::{REVOCATION_SUBJECT, REVOCATIONS_BUCKET};

mod subscriber;

pub use subscriber::{RevocationUpdate, watch_revocations};

/// The version of the record; another is not heeded.
const RECORD_VERSION: u8 = 1;
/// NATS 2.15 allows 1,000 consumers unless the stream says another number; a gateway's watch is one.
const MAX_CONSUMERS: i32 = 20_000;

/// The bucket's bound in bytes, where the account allows no stream without one: some hundred thousand revocations.
pub(crate) const REQUIRED_MAX_BYTES: i64 = 64 << 20;

/// What is broadcast and kept in the bucket, as JSON: `nats kv get confab_revocations <key>` shows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevocationRecord {
    version: u8,
    revision: u64,
    tenant: TenantId,
    #[serde(flatten)]
    view: RevocationView,
}

fn encode(revocation: &Revocation) -> Result<Bytes, BusError> {
    let record = RevocationRecord {
        version: RECORD_VERSION,
        revision: revocation.revision,
        tenant: revocation.tenant.clone(),
        view: RevocationView::from(revocation),
    };
    serde_json::to_vec(&record)
        .map(Bytes::from)
        .map_err(BusError::nats("encode a revocation"))
}

/// None when the bytes are no record of this version.
fn decode(bytes: &[u8]) -> Option<Revocation> {
    let record: RevocationRecord = serde_json::from_slice(bytes).ok()?;
    let (created_at, expires_at) = (record.view.created_at, record.view.expires_at);
    Some(Revocation {
        revision: record.revision,
        tenant: record.tenant,
        target: record
            .view
            .target()
            .filter(|_| record.version == RECORD_VERSION)?,
        created_at,
        expires_at,
    })
}

/// `<tenant>.<kind>.<subject>`: what is any text stands there in hex. A session that must be one user's has that user
/// behind it, so that who names another's session takes nobody's place.
fn key(revocation: &Revocation) -> String {
    let tenant = &revocation.tenant;
    match &revocation.target {
        RevocationTarget::Session {
            session,
            user: None,
        } => format!("{tenant}.session.{session}"),
        RevocationTarget::Session {
            session,
            user: Some(user),
        } => {
            format!("{tenant}.session.{session}.{}", hex(user.as_str()))
        }
        RevocationTarget::Login(login) => format!("{tenant}.login.{}", hex(login)),
        RevocationTarget::User { user, .. } => format!("{tenant}.user.{}", hex(user.as_str())),
    }
}

fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(hex, "{byte:02x}").is_ok();
        hex
    })
}

/// The stream below the bucket, as NATS clients make it (NATS ADR-8), with a number of consumers, which a bucket's own
/// configuration cannot say.
fn bucket_config(settings: &Settings) -> Config {
    Config {
        name: format!("KV_{REVOCATIONS_BUCKET}"),
        description: Some(
            "confab: what was revoked, on its fast way to gateways; the truth is in Postgres"
                .to_owned(),
        ),
        subjects: vec![format!("$KV.{REVOCATIONS_BUCKET}.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: 1,
        max_consumers: MAX_CONSUMERS,
        num_replicas: settings.nats_replicas,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..Config::default()
    }
}

/// Returns true if the account allows no stream without a bound in bytes.
fn is_bound_required(error: &CreateStreamError) -> bool {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::STREAM_MAX_BYTES_REQUIRED
        }
        _ => false,
    }
}

impl Bus {
    /// Tells every gateway that listens now what was revoked.
    ///
    /// # Errors
    /// When NATS is away: then gateways read it from a worker.
    pub async fn tell_revocation(&self, revocation: &Revocation) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(REVOCATION_SUBJECT, encode(revocation)?)
            .await
            .map_err(BusError::nats("announce a revocation"))
    }

    /// Tells every gateway what was revoked, and keeps it in the bucket until it expires.
    ///
    /// # Errors
    /// When NATS is away, or the bucket did not take it: then gateways read it from a worker.
    pub async fn announce_revocation(&self, revocation: &Revocation) -> Result<(), BusError> {
        self.tell_revocation(revocation).await?;
        let record = encode(revocation)?;
        let has_ttl = self
            .revocations_bucket()
            .await?
            .cached_info()
            .config
            .allow_message_ttl;
        let mut headers = HeaderMap::new();
        if has_ttl {
            let left = revocation.expires_at.to_datetime() - OffsetDateTime::now_utc();
            let seconds = left.whole_seconds().max(1);
            headers.insert(NATS_MESSAGE_TTL, format!("{seconds}s"));
        }
        let subject = format!("$KV.{REVOCATIONS_BUCKET}.{}", key(revocation));
        let subject = self.bucket_subject(subject);
        let publishing = self
            .jetstream
            .publish_with_headers(subject, headers, record)
            .await;
        publishing
            .map_err(BusError::nats("keep a revocation"))?
            .await
            .map_err(BusError::nats("keep a revocation"))?;
        Ok(())
    }

    /// The bucket's stream, made where there is none. One that is there is left as its operator has set it.
    async fn revocations_bucket(&self) -> Result<Stream, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let config = bucket_config(&self.settings);
        let mut made = Box::pin(self.jetstream.get_or_create_stream(config.clone())).await;
        if made.as_ref().is_err_and(is_bound_required) {
            let bounded = Config {
                max_bytes: REQUIRED_MAX_BYTES,
                ..config
            };
            made = Box::pin(self.jetstream.get_or_create_stream(bounded)).await;
        }
        made.map_err(BusError::nats("provision the bucket of revocations"))
    }
}

#[cfg(test)]
mod tests;
