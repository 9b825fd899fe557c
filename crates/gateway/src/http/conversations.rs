//! `/v1/conversations`: create, get, list, change, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use confab_protocol::command::{
    Command, CreateConversation, DeleteConversation, Outcome, UpdateConversation,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::json::{Canonical, Fields, JsonText};
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::ConversationType;
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashSet;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::answer::{self, REPLAYED_HEADER};
use super::body::{JsonBody, PatchBody};
use super::pages::gather;
use super::params::{NoParams, Params};
use super::path::InConversation;
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency, if_match, metadata};
use crate::api_docs::openapi::{answers, bodies};
use crate::keys;

/// Begin a conversation.
///
/// The caller is always a member and admin, but with the scope `confab:admin`, which creates for others. A direct
/// conversation has its two users listed, the caller among them, one undeleted such conversation a pair; both are
/// admins. A group has up to 1,000 members, and all may send; a channel up to 100,000, and only admins send.
///
/// With an `Idempotency-Key`, the same user, key and body within 24 hours get the first answer again, status, `Location`
/// and `ETag` included, with `Idempotent-Replayed: true`; without one every request begins another conversation. Kept are
/// successes and the refusals that were decided where the conversation would be stored; not those of tokens, limits or
/// bodies, nor faults. The body is compared by what its JSON says, not by how it is written, until the conversation is deleted: then its key alone
/// counts.
#[utoipa::path(
    post,
    path = "/v1/conversations",
    operation_id = "createConversation",
    tag = "conversations",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^([!#-~][!-~]{0,254}|\"[!#-\\[\\]-~]{1,255}\")$", description = "Makes the creation idempotent for 24 hours: 1 to 255 visible ASCII characters; the quoted form and the bare one are the same key.")),
    request_body(content = bodies::CreateConversation, description = "What begins."),
    responses((
        status = 201,
        body = answers::ConversationWithParticipants,
        description = "It began, now or when the key was first used.",
        headers(
            ("Location" = String, description = "The conversation's path."),
            ("ETag" = String, description = "The body's entity tag."),
            ("Idempotent-Replayed" = String, description = "`true` where the key was used before.")
        )
    ))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let given = idempotency::key(&headers)?;
    let is_keyed = given.is_some();
    let key = given.unwrap_or_else(|| Uuid::now_v7().to_string());
    let read = move |body: &[u8]| read_creation(body, key);
    let creation = app.parse(&who, body, read).await?;
    let command = Command::CreateConversation(creation);
    let outcome = app.commands.execute(who.request(caller, command)).await;
    // What this gateway itself tried again is no repeat of the client's.
    let outcome = outcome.map_err(|failure| Failure {
        replayed: is_keyed && failure.replayed,
        ..failure
    });
    let Outcome::Created(created) = outcome? else {
        return Err(Failure::of(Code::Internal).into());
    };
    let location = format!("/v1/conversations/{}", created.conversation);
    let mut response = answer::with_etag(StatusCode::CREATED, created.body);
    let headers = response.headers_mut();
    headers.extend(
        HeaderValue::from_str(&location)
            .ok()
            .map(|location| (LOCATION, location)),
    );
    headers.extend((is_keyed && created.replayed).then_some(REPLAYED_HEADER));
    Ok(response)
}

pub(super) fn read_creation(body: &[u8], key: String) -> Result<CreateConversation, Failure> {
    let mut fields = Fields::parse(body)?;
    let r#type = fields.require::<ConversationType>("type");
    let listed = fields.require::<Vec<UserId>>("participants");
    let metadata = metadata::take(&mut fields);
    if listed
        .as_ref()
        .is_some_and(|users| !(1..=limits::PARTICIPANTS_PER_REQUEST).contains(&users.len()))
    {
        fields.reject("participants", "must name 1 to 1000 users");
    }
    fields.finish()?;
    let (Some(r#type), Some(mut participants)) = (r#type, listed) else {
        return Err(Failure::of(Code::Validation));
    };
    let mut seen = FxHashSet::default();
    participants.retain(|user| seen.insert(user.clone()));
    let request_hash = hash(&(r#type, &participants, &metadata))?;
    Ok(CreateConversation {
        conversation: ConversationId(Uuid::now_v7()),
        key,
        request_hash,
        r#type,
        participants,
        metadata,
    })
}

/// SHA-256 of what a request says, which is the same however its JSON is written.
fn hash(said: &impl Serialize) -> Result<[u8; 32], Failure> {
    let text = JsonText::of(said).map_err(|_unprintable| Failure::of(Code::Internal))?;
    let read = Canonical::read(text.as_str()).ok_or_else(|| Failure::of(Code::Internal))?;
    Ok(Sha256::digest(read.to_text()).into())
}

/// A conversation, with its first participants.
///
/// For members, and with the scope `confab:admin`. The entity tag covers the whole body, so that it changes with every
/// event and read mark, not with the `version` alone: `If-Match` of a change takes the version, not this tag.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}",
    operation_id = "getConversation",
    tag = "conversations",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags that the client has: where one of them is still right, the answer is 304.")
    ),
    responses(
        (
            status = 200,
            body = answers::ConversationWithParticipants,
            description = "The conversation as the caller sees it.",
            headers(("ETag" = String, description = "The body's entity tag."))
        ),
        (
            status = 304,
            description = "The client has it already.",
            headers(("ETag" = String, description = "The body's entity tag."))
        )
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    who: Who,
    InConversation(conversation): InConversation,
    _: NoParams,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let query = Query::GetConversation {
        caller,
        conversation,
    };
    let Answer::Object(body) = app.ask(&who, query).await? else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = answer::with_etag(StatusCode::OK, body);
    Ok(answer::unless_unchanged(&headers, response))
}

/// The caller's conversations.
///
/// Those that were deleted, or that it has left, are not listed. Each has its last message's preview, of which `content` is
/// null where it is encrypted, deleted or longer than 1 KiB. In the order `created` a walk through the pages is exact under
/// changes; in `recent` one that moves meanwhile may be missed, and none comes twice. A page may hold fewer than `limit`
/// also when more follow: only a `nextCursor` of null is the end.
#[utoipa::path(
    get,
    path = "/v1/conversations",
    operation_id = "listConversations",
    tag = "conversations",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many at most, 1 to 100; 50 when it is not given. One out of its range is refused."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before, with the same other parameters."),
        ("type" = Option<ConversationType>, Query, description = "Only of this type."),
        ("order" = Option<ListOrder>, Query, description = "`recent` (when it is not given): the last message first, a conversation without one by its beginning; `created`: the newest first.")
    ),
    responses((status = 200, body = answers::ConversationPage, description = "A page."))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    who: Who,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let mut params = Params::parse(query.as_deref());
    let limit = params.limit(1..=100, 50);
    let cursor = params.text("cursor");
    let r#type = params.parsed("type", "must be direct, group or channel");
    let order = match params.text("order").as_deref() {
        None | Some("recent") => ListOrder::Recent,
        Some("created") => ListOrder::Created,
        Some(_) => {
            params.reject("order", "must be recent or created");
            ListOrder::Recent
        }
    };
    params.finish()?;
    let question = |limit, cursor| {
        Query::ListConversations(ListConversations {
            caller: caller.clone(),
            limit,
            cursor,
            r#type,
            order,
        })
    };
    let page = gather(&app, &who, limit, cursor, question).await?;
    Ok(page.under("conversations"))
}

/// Change a conversation's metadata.
///
/// A JSON merge patch (RFC 7396) of the metadata, for admins; in a direct conversation for both. It appends a `conversation.updated` and
/// counts `version` up, unless nothing differs behind it. `custom` is merged as deep as it goes, and is at most 16 KiB behind the change as
/// well.
#[utoipa::path(
    patch,
    path = "/v1/conversations/{id}",
    operation_id = "updateConversation",
    tag = "conversations",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("If-Match" = Option<String>, Header, pattern = "^(\\*|(0|[1-9][0-9]{0,18})|\"(0|[1-9][0-9]{0,18})\")$", description = "The `version` that the conversation must have, quoted or bare (not the entity tag), or `*`. VERSION_CONFLICT names the present one.")
    ),
    request_body(
        content(
            (bodies::UpdateConversation = "application/json"),
            (bodies::UpdateConversation = "application/merge-patch+json")
        ),
        description = "What changes."
    ),
    responses((status = 200, body = answers::ConversationAlone, description = "The conversation behind the change."))
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    headers: HeaderMap,
    PatchBody(body): PatchBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let command = Command::UpdateConversation(UpdateConversation {
        conversation,
        expected_version: if_match::version(&headers)?,
        patch: metadata::read_patch(&body)?,
        client_id: keys::of_request("update_conversation", key.as_deref()),
    });
    let Outcome::Updated {
        conversation,
        replayed,
    } = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = answer::named(StatusCode::OK, "conversation", &conversation);
    Ok(answer::replayed_if(key.is_some() && replayed, response))
}

/// Delete a conversation.
///
/// For admins. It ends all memberships: every member's last event is the `conversation.deleted`. From then on every
/// other route answers its former members with `CONVERSATION_DELETED`, and strangers as ever with `CONVERSATION_NOT_FOUND`.
/// Repeating it gives the same answer to every former member.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}",
    operation_id = "deleteConversation",
    tag = "conversations",
    params(("id" = ConversationId, Path, description = "The conversation.")),
    responses((status = 200, body = answers::ConversationDeletion, description = "It is deleted, now or before."))
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let command = Command::DeleteConversation(DeleteConversation {
        conversation,
        client_id: keys::of_request("delete_conversation", key.as_deref()),
    });
    let Outcome::Deleted {
        deleted_at,
        replayed,
    } = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = Json(Deleted {
        deleted: true,
        deleted_at,
    })
    .into_response();
    Ok(answer::replayed_if(key.is_some() && replayed, response))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    deleted: bool,
    deleted_at: Timestamp,
}
