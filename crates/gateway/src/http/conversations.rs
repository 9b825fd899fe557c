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
use confab_protocol::ids::UserId;
use confab_protocol::json::Fields;
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::ConversationType;
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashSet;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::answer::{self, REPLAYED};
use super::body::{JsonBody, PatchBody};
use super::pages::gather;
use super::params::{NoParams, Params};
use super::path::InConversation;
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency, if_match, metadata};

/// `POST /v1/conversations`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let given = idempotency::key(&headers)?;
    let is_keyed = given.is_some();
    let key = given.unwrap_or_else(|| Uuid::now_v7().to_string());
    let command = Command::CreateConversation(read_creation(&body, key)?);
    let Outcome::Created(created) = app.commands.execute(who.request(caller, command)).await?
    else {
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
    // What this gateway itself tried again is no repeat of the client's.
    headers.extend((is_keyed && created.replayed).then_some(REPLAYED));
    Ok(response)
}

fn read_creation(body: &[u8], key: String) -> Result<CreateConversation, Failure> {
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
    let request_hash = Sha256::digest(body).into();
    Ok(CreateConversation {
        key,
        request_hash,
        r#type,
        participants,
        metadata,
    })
}

/// `GET /v1/conversations/{id}`
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

/// `GET /v1/conversations`
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

/// `PATCH /v1/conversations/{id}`
pub(super) async fn update(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    headers: HeaderMap,
    PatchBody(body): PatchBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let command = Command::UpdateConversation(UpdateConversation {
        conversation,
        expected_version: if_match::version(&headers)?,
        patch: metadata::read_patch(&body)?,
        client_id: idempotency::own_key(),
    });
    let Outcome::Updated { conversation } =
        app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(answer::named(StatusCode::OK, "conversation", &conversation))
}

/// `DELETE /v1/conversations/{id}`
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let command = Command::DeleteConversation(DeleteConversation {
        conversation,
        client_id: idempotency::own_key(),
    });
    let Outcome::Deleted { deleted_at } =
        app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(Json(Deleted {
        deleted: true,
        deleted_at,
    })
    .into_response())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    deleted: bool,
    deleted_at: Timestamp,
}
