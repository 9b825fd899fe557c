//! Keys of creations: what the first use of each came to, for 24 hours.
//!
//! A repeat is compared by an HMAC of its request. The HMAC's key stands beside it and both go when the conversation is deleted, so that
//! nothing then tells what it began with; from then on the key alone is recognised.

use aws_lc_rs::hmac;
use confab_protocol::command::{Caller, CreateConversation, Created};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::ConversationId;
use confab_protocol::limits;
use sqlx::PgConnection;
use sqlx::error::DatabaseError;
use uuid::Uuid;

use crate::error::CommandError;

/// $1 conversation.
pub(super) const FORGET: &str =
    "update creation_keys set request_hash = null, hash_key = null where conversation_id = $1";

/// What the first use of a key came to.
pub(super) enum FirstUse {
    Created(ConversationId),
    /// It was decided under the key, and is kept like a success.
    Refused(Failure),
}

/// Takes the key, or finds its first use. One that still runs is waited for by the insert itself.
pub(super) async fn take(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
) -> Result<Option<FirstUse>, CommandError> {
    let hash_key = Uuid::new_v4();
    let signed = hmac::sign(&key(hash_key), &command.request_hash);
    let taken = sqlx::query(
        "insert into creation_keys (tenant, user_id, key, request_hash, hash_key, expires_at) \
         values ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 second') \
         on conflict (tenant, user_id, key) do update \
            set request_hash = excluded.request_hash, hash_key = excluded.hash_key, expires_at = excluded.expires_at, \
                outcome = null, conversation_id = null \
            where creation_keys.expires_at < clock_timestamp()",
    )
    .bind(caller.tenant.as_str())
    .bind(caller.user.as_str())
    .bind(&command.key)
    .bind(signed.as_ref())
    .bind(hash_key)
    .bind(limits::CREATION_KEY_SECONDS.cast_signed())
    .execute(&mut *tx)
    .await
    .map_err(in_use)?;
    if taken.rows_affected() == 1 {
        return Ok(None);
    }
    first_use(tx, caller, command).await.map(Some)
}

async fn first_use(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
) -> Result<FirstUse, CommandError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        request_hash: Option<Vec<u8>>,
        hash_key: Option<Uuid>,
        conversation_id: Option<Uuid>,
        outcome: Option<String>,
    }
    let row: Row = sqlx::query_as(
        "select request_hash, hash_key, conversation_id, outcome from creation_keys \
         where tenant = $1 and user_id = $2 and key = $3",
    )
    .bind(caller.tenant.as_str())
    .bind(caller.user.as_str())
    .bind(&command.key)
    .fetch_one(tx)
    .await?;
    if let (Some(hash), Some(hash_key)) = (row.request_hash, row.hash_key)
        && hmac::verify(&key(hash_key), &command.request_hash, &hash).is_err()
    {
        let why = "the key was used for another conversation";
        return Err(Failure::new(Code::IdempotencyKeyReused, why).into());
    }
    match (row.conversation_id, row.outcome) {
        (Some(id), _) => Ok(FirstUse::Created(ConversationId(id))),
        (None, Some(refusal)) => Ok(FirstUse::Refused(serde_json::from_str(&refusal)?)),
        (None, None) => Err(CommandError::Stored("a creation without an outcome")),
    }
}

/// Keeps what the first use came to.
pub(super) async fn keep(
    tx: &mut PgConnection,
    caller: &Caller,
    command: &CreateConversation,
    outcome: &Result<Created, Failure>,
) -> Result<(), CommandError> {
    let (id, refusal) = match outcome {
        Ok(created) => (Some(created.conversation.0), None),
        Err(failure) => (None, Some(serde_json::to_string(failure)?)),
    };
    sqlx::query(
        "update creation_keys set conversation_id = $4, outcome = $5 where tenant = $1 and user_id = $2 and key = $3",
    )
    .bind(caller.tenant.as_str())
    .bind(caller.user.as_str())
    .bind(&command.key)
    .bind(id)
    .bind(refusal)
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets what a conversation was created with. Before its members' counts are locked, in which order a creation locks.
pub(super) async fn forget(
    tx: &mut PgConnection,
    conversation: ConversationId,
) -> Result<(), CommandError> {
    sqlx::query(FORGET).bind(conversation.0).execute(tx).await?;
    Ok(())
}

fn key(bytes: Uuid) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes.as_bytes())
}

/// A key that could not be had in time is that of a creation that still runs.
fn in_use(error: sqlx::Error) -> CommandError {
    let code = error.as_database_error().and_then(DatabaseError::code);
    if code.as_deref() == Some("55P03") {
        CommandError::KeyInUse(error)
    } else {
        error.into()
    }
}
