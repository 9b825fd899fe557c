//! `/v1/conversations`: create, get, list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_protocol::command::{Command, CreateConversation, Outcome};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::UserId;
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::ConversationType;
use rustc_hash::FxHashSet;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::body::JsonBody;
use super::params::{NoParams, Params};
use super::path::InConversation;
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency, metadata};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const REPLAYED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("idempotent-replayed"),
    HeaderValue::from_static("true"),
);

/// `POST /v1/conversations`
pub(super) async fn create(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?.unwrap_or_else(|| Uuid::now_v7().to_string());
    let command = Command::CreateConversation(read_creation(&body, key)?);
    let Outcome::Created(created) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let location = format!("/v1/conversations/{}", created.conversation);
    let mut response = with_etag(StatusCode::CREATED, created.body);
    let headers = response.headers_mut();
    headers.extend(
        HeaderValue::from_str(&location)
            .ok()
            .map(|location| (LOCATION, location)),
    );
    headers.extend(created.replayed.then_some(REPLAYED));
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
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    Params::parse(query.as_deref()).finish()?;
    let query = Query::GetConversation {
        caller,
        conversation,
    };
    let Answer::Object(body) = app
        .commands
        .query(who.request_id, who.traceparent, query)
        .await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = with_etag(StatusCode::OK, body);
    if is_unchanged(&headers, response.headers().get(ETAG)) {
        let etag = response.headers().get(ETAG).cloned();
        let mut unchanged = StatusCode::NOT_MODIFIED.into_response();
        unchanged
            .headers_mut()
            .extend(etag.map(|etag| (ETAG, etag)));
        return Ok(unchanged);
    }
    Ok(response)
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
    let query = Query::ListConversations(ListConversations {
        caller,
        limit,
        cursor,
        r#type,
        order,
    });
    let answer = app
        .commands
        .query(who.request_id, who.traceparent, query)
        .await?;
    page("conversations", answer)
}

/// A page under the name of what it holds.
pub(super) fn page(name: &str, answer: Answer) -> Result<Response, Problem> {
    let Answer::Page { items, next_cursor } = answer else {
        return Err(Failure::of(Code::Internal).into());
    };
    let size = items
        .iter()
        .map(|item| item.as_str().len() + 1)
        .sum::<usize>();
    let mut body = String::with_capacity(size + 128);
    body.push_str("{\"");
    body.push_str(name);
    body.push_str("\":[");
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(item.as_str());
    }
    body.push_str("],\"nextCursor\":");
    body.push_str(&next_cursor.map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\"")));
    body.push('}');
    Ok(json(StatusCode::OK, body))
}

/// An answer whose body is JSON text.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], Body::from(body)).into_response()
}

fn with_etag(status: StatusCode, body: JsonText) -> Response {
    let digest = Sha256::digest(body.as_str().as_bytes());
    let etag = format!(
        "\"{}\"",
        URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default())
    );
    let mut response = json(status, body.into_string());
    response
        .headers_mut()
        .extend(HeaderValue::from_str(&etag).ok().map(|etag| (ETAG, etag)));
    response
}

/// Whether the client has this representation already (RFC 9110, section 13.1.2: compared weakly).
fn is_unchanged(headers: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    let Some(etag) = etag.and_then(|etag| etag.to_str().ok()) else {
        return false;
    };
    let values = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
