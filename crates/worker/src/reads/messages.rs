//! One message by its id.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::query::Answer;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{EventRow, message};
use crate::error::CommandError;

/// An event with what it and its conversation are to the caller.
#[derive(Debug, sqlx::FromRow)]
struct Found {
    #[sqlx(flatten)]
    event: EventRow,
    conversation_id: Uuid,
    is_deleted: bool,
    is_member: bool,
    was_member: bool,
}

pub(super) const STATEMENT: &str = "\
    select e.conversation_id, e.seq, e.id, e.type, e.actor, e.client_id, e.created_at, e.edited_at, e.deleted_at, e.version, e.payload, \
        c.is_deleted, \
        exists (select 1 from participants p \
            where p.conversation_id = e.conversation_id and p.user_id = $3 and p.left_seq is null) as is_member, \
        exists (select 1 from participants p where p.conversation_id = e.conversation_id and p.user_id = $3) as was_member \
    from events e \
    cross join lateral (select c.deleted_at is not null as is_deleted from conversations c \
        where c.id = e.conversation_id and c.tenant = $2 limit 1) c \
    where e.id = $1 and e.type = 'message.created'";

/// A message, for those who may read its conversation. Nobody else learns that there is one, but for its deleted conversation's members.
pub(super) async fn get(
    connection: &mut PgConnection,
    caller: &Caller,
    id: EventId,
) -> Result<Answer, CommandError> {
    let found: Option<Found> = sqlx::query_as(STATEMENT)
        .bind(id.0)
        .bind(caller.tenant.as_str())
        .bind(caller.user.as_str())
        .fetch_optional(connection)
        .await?;
    let not_found = || Failure::of(Code::MessageNotFound);
    let found = found.ok_or_else(not_found)?;
    if found.is_deleted && (found.was_member || caller.admin) {
        return Err(Failure::of(Code::ConversationDeleted).into());
    }
    if found.is_deleted || !(found.is_member || caller.admin) {
        return Err(not_found().into());
    }
    let conversation = ConversationId(found.conversation_id);
    Ok(Answer::Object(message(conversation, &found.event)?))
}
