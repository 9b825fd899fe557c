//! The OpenAPI description: what the routes say of themselves, and what is true of all of them.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that is not there is null, and those written to are objects made here"
)]

use confab_protocol::ids::UserId;
use confab_protocol::query::ListOrder;
use confab_protocol::resource::{ConversationType, Role};
use confab_protocol::timestamp::Timestamp;
use serde_json::{Map, Value, json};
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use crate::public_url::PublicUrl;

pub(crate) mod answers;
pub(crate) mod bodies;
mod content;
mod examples;
mod links;
pub(crate) mod problems;
pub(crate) mod samples;
mod service;

/// What the description says before its routes.
const ABOUT_TEXT: &str = include_str!("openapi/about.md");
const HTTP_METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Operations whose repeat by an Idempotency-Key is answered with the first outcome, and says so.
const REPLAYED_OPERATIONS: [&str; 7] = [
    "updateConversation",
    "deleteConversation",
    "addParticipants",
    "updateParticipant",
    "removeParticipant",
    "editMessage",
    "deleteMessage",
];
/// Operations whose repeat by an Idempotency-Key changes nothing.
const IDEMPOTENT_OPERATIONS: [&str; 3] = ["markRead", "revokeSession", "revoke"];

/// The description of every route, from what the routes say of themselves.
pub(crate) fn document(api: OpenApi, public_url: Option<&PublicUrl>) -> Value {
    let described = serde_json::to_value(api).unwrap_or_default();
    let mut paths = taken(&described, "/paths");
    let mut schemas = taken(&described, "/components/schemas");
    add_schemas(&mut schemas);
    content::exactly_one(&mut schemas);
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        for (method, operation) in item {
            if HTTP_METHODS.contains(&method.as_str()) {
                complete(operation);
            }
        }
    }
    paths.extend(service::paths());
    problems::add_schemas(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "confab",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Conversations, participants and messages, over HTTP.",
            "description": ABOUT_TEXT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": public_url.map_or("/", PublicUrl::text), "description": "Any gateway." }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                "RequestId": request_id_parameter(),
                "IdempotencyKey": idempotency_key_parameter(),
            },
            "headers": headers(),
            "responses": problems::responses(),
            "examples": problems::all_examples(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A JWT of the product's identity provider: `sub` is the user. Without a `confab:…` scope it may read and write as its user; with one, only what it names: `confab:read`, `confab:write`, `confab:admin`.",
                },
            },
        },
    })
}

/// The schema of a body that carries a message's content: in clear, or encrypted.
pub(crate) fn content_body(name: &str) -> Value {
    let (send, edit) = (bodies::SendMessage::schema(), bodies::EditMessage::schema());
    let schema = if name == "SendMessage" { send } else { edit };
    content::split(&serde_json::to_value(schema).unwrap_or_default())
}

/// The object at `pointer`, empty where there is none.
fn taken(document: &Value, pointer: &str) -> Map<String, Value> {
    let found = document.pointer(pointer).and_then(Value::as_object);
    found.cloned().unwrap_or_default()
}

/// What every operation has, whatever it says of itself.
fn complete(operation: &mut Value) {
    let Some(operation) = operation.as_object_mut() else {
        return;
    };
    let id = operation
        .get("operationId")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    operation.insert("security".to_owned(), security(&id));
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.iter_mut().for_each(bound_seq);
        parameters.push(json!({ "$ref": "#/components/parameters/RequestId" }));
        if REPLAYED_OPERATIONS.contains(&id.as_str())
            || IDEMPOTENT_OPERATIONS.contains(&id.as_str())
        {
            parameters.push(json!({ "$ref": "#/components/parameters/IdempotencyKey" }));
        }
    }
    let has_body = operation.contains_key("requestBody");
    if let Some(body) = operation.get_mut("requestBody") {
        body["required"] = json!(true);
        put_examples(body, examples::request(&id));
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else {
        return;
    };
    for (status, response) in responses.iter_mut() {
        put_headers(response);
        if status.starts_with('2') && REPLAYED_OPERATIONS.contains(&id.as_str()) {
            response["headers"]["Idempotent-Replayed"] =
                json!({ "$ref": "#/components/headers/Idempotent-Replayed" });
        }
        if status != "304" {
            put_examples(response, examples::response(&id));
        }
        if let Some(links) = links::of(&id, status) {
            response["links"] = links;
        }
    }
    responses.extend(problems::of(&id, has_body));
}

/// A browser says its token in `hello`: the WebSocket's route takes one, and does not demand it.
fn security(id: &str) -> Value {
    if id == "connect" {
        json!([{ "bearer": [] }, {}])
    } else {
        json!([{ "bearer": [] }])
    }
}

/// A seq is unsigned, of 64 bits.
fn bound_seq(parameter: &mut Value) {
    if let Some(schema) = parameter.get_mut("schema")
        && schema["format"] == "int64"
    {
        schema["format"] = json!("uint64");
        schema["maximum"] = json!(u64::MAX);
    }
    // An optional parameter is left out, not null.
    if let Some(types) = parameter.pointer("/schema/type").and_then(Value::as_array)
        && let Some(one) = types.iter().find(|one| *one != "null").cloned()
    {
        parameter["schema"]["type"] = one;
    }
    if let Some(options) = parameter.pointer("/schema/oneOf").and_then(Value::as_array)
        && let Some(one) = options.iter().find(|one| one["type"] != "null").cloned()
    {
        parameter["schema"] = one;
    }
}

fn put_examples(holder: &mut Value, examples: Option<Value>) {
    let (Some(examples), Some(content)) = (examples, holder.get_mut("content")) else {
        return;
    };
    for media_type in content
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        media_type["examples"] = examples.clone();
    }
}

fn put_headers(response: &mut Value) {
    let own = response["headers"].take();
    let mut all = own.as_object().cloned().unwrap_or_default();
    for name in ["X-Request-Id", "RateLimit", "RateLimit-Policy"] {
        all.insert(
            name.to_owned(),
            json!({ "$ref": format!("#/components/headers/{name}") }),
        );
    }
    response["headers"] = all.into();
}

/// Adds the types that only parameters and bounded lists refer to: they are not found by themselves.
fn add_schemas(schemas: &mut Map<String, Value>) {
    let mut found = Vec::new();
    bodies::Additions::schemas(&mut found);
    bodies::Addition::schemas(&mut found);
    found.extend([
        named::<bodies::Addition>(),
        named::<ConversationType>(),
        named::<ListOrder>(),
        named::<Role>(),
        named::<Timestamp>(),
        named::<UserId>(),
    ]);
    for (name, schema) in found {
        schemas
            .entry(name)
            .or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
}

fn named<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

fn request_id_parameter() -> Value {
    json!({
        "name": "X-Request-Id",
        "in": "header",
        "description": "The request's id in logs: 1 to 128 of `A-Z a-z 0-9 . _ -`; any other is replaced by a made one.",
        "schema": { "type": "string" },
    })
}

fn idempotency_key_parameter() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes a repeat change nothing, by user, conversation and operation: 1 to 255 visible ASCII characters; the quoted form and the bare one are the same key, and so are the ways to write a UUID. Another request under the same key is refused.",
        "schema": { "type": "string", "pattern": "^([!#-~][!-~]{0,254}|\"[!#-\\[\\]-~]{1,255}\")$" },
    })
}

fn headers() -> Value {
    json!({
        "X-Request-Id": {
            "description": "The request's id: the caller's, or made.",
            "required": true,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" },
        },
        "Idempotent-Replayed": {
            "description": "`true` where the key was used before.",
            "schema": { "type": "string", "enum": ["true"] },
        },
        "Retry-After": {
            "description": "After how many seconds trying again makes sense.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        },
        "RateLimit": {
            "description": "What is left (draft-ietf-httpapi-ratelimit-headers), where the installation limits rates.",
            "schema": { "type": "string" },
        },
        "RateLimit-Policy": {
            "description": "The limits (draft-ietf-httpapi-ratelimit-headers), where the installation limits rates.",
            "schema": { "type": "string" },
        },
        "WWW-Authenticate": {
            "description": "The challenge (RFC 6750).",
            "required": true,
            "schema": { "type": "string", "pattern": "^Bearer" },
        },
    })
}

fn tags() -> Value {
    json!([
        { "name": "conversations", "description": "What messages are sent in: direct, group, channel." },
        { "name": "participants", "description": "Who is in a conversation, and as what." },
        { "name": "messages", "description": "What is said, its history, the log, and read marks." },
        { "name": "sessions", "description": "Live connections, and what ends them." },
        { "name": "websocket", "description": "The way to hear what happens as it happens; described by `/asyncapi.json`." },
        { "name": "service", "description": "The process itself, without a token." },
    ])
}
