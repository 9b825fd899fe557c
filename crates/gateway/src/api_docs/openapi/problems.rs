//! Refusals: which operation may answer with which codes.

use std::collections::BTreeMap;

use confab_protocol::error::{Code, FieldError};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

/// Codes of one operation, beside those that any operation may answer with.
const OPERATION_CODES: &[(&str, &[Code])] = &[
    ("connect", &[Code::OriginForbidden, Code::UpgradeRequired]),
    (
        "createConversation",
        &[
            Code::InvalidIdempotencyKey,
            Code::InvalidDirectConversation,
            Code::TooManyConversations,
            Code::DirectConversationExists,
            Code::IdempotencyInProgress,
            Code::IdempotencyKeyReused,
        ],
    ),
    ("listConversations", &[Code::InvalidCursor]),
    (
        "getConversation",
        &[Code::ConversationNotFound, Code::ConversationDeleted],
    ),
    (
        "updateConversation",
        &[
            Code::InvalidIfMatch,
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::VersionConflict,
            Code::ConversationDeleted,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "deleteConversation",
        &[
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "listParticipants",
        &[
            Code::InvalidCursor,
            Code::ConversationNotFound,
            Code::ConversationDeleted,
        ],
    ),
    (
        "addParticipants",
        &[
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::AlreadyParticipant,
            Code::ConversationFull,
            Code::TooManyConversations,
            Code::DirectConversationFixed,
            Code::ConversationDeleted,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "updateParticipant",
        &[
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::ParticipantNotFound,
            Code::LastAdmin,
            Code::DirectConversationFixed,
            Code::ConversationDeleted,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "removeParticipant",
        &[
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::ParticipantNotFound,
            Code::DirectConversationFixed,
            Code::ConversationDeleted,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "sendMessage",
        &[
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::ConversationNotFound,
            Code::MessageNotFound,
            Code::ConversationDeleted,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "getMessage",
        &[Code::MessageNotFound, Code::ConversationDeleted],
    ),
    (
        "editMessage",
        &[
            Code::InvalidIfMatch,
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::MessageNotFound,
            Code::ConversationDeleted,
            Code::PreconditionFailed,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "deleteMessage",
        &[
            Code::InvalidIfMatch,
            Code::InvalidIdempotencyKey,
            Code::InsufficientPermissions,
            Code::MessageNotFound,
            Code::ConversationDeleted,
            Code::PreconditionFailed,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "listMessages",
        &[
            Code::InvalidCursor,
            Code::ConversationNotFound,
            Code::ConversationDeleted,
        ],
    ),
    (
        "listMessagesOfConversation",
        &[
            Code::InvalidCursor,
            Code::ConversationNotFound,
            Code::ConversationDeleted,
        ],
    ),
    (
        "listEvents",
        &[Code::ConversationNotFound, Code::ConversationDeleted],
    ),
    (
        "markRead",
        &[
            Code::InvalidIdempotencyKey,
            Code::ConversationNotFound,
            Code::MessageNotFound,
            Code::ConversationDeleted,
        ],
    ),
    ("getPresence", &[]),
    ("listSessions", &[]),
    ("revokeSession", &[Code::InvalidIdempotencyKey]),
    (
        "revoke",
        &[Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused],
    ),
];
/// Codes that any operation with a token may answer with, by the name of their shared response.
const SHARED_CODES: [(&str, &[Code]); 8] = [
    (
        "Unauthorized",
        &[
            Code::MissingToken,
            Code::InvalidToken,
            Code::TokenExpired,
            Code::TokenNotYetValid,
            Code::TokenRevoked,
        ],
    ),
    ("NotAcceptable", &[Code::NotAcceptable]),
    ("UriTooLong", &[Code::UriTooLong]),
    ("RateLimited", &[Code::RateLimited]),
    ("HeadersTooLarge", &[Code::HeadersTooLarge]),
    ("Internal", &[Code::Internal]),
    (
        "Unavailable",
        &[Code::Unavailable, Code::Overloaded, Code::AuthUnavailable],
    ),
    ("Timeout", &[Code::Timeout]),
];
/// Codes that any operation with a body may answer with.
const ANY_WITH_BODY: [(&str, &[Code]); 2] = [
    ("PayloadTooLarge", &[Code::PayloadTooLarge]),
    ("UnsupportedMediaType", &[Code::UnsupportedMediaType]),
];

/// The refusals of an operation, by status.
pub(crate) fn of(operation: &str, has_body: bool) -> Map<String, Value> {
    let with_body = ANY_WITH_BODY.iter().filter(|_| has_body);
    let shared = SHARED_CODES
        .iter()
        .chain(with_body)
        .filter_map(|(name, codes)| {
            let status = codes.first()?.status();
            Some((status, (*name).to_owned()))
        });
    let row = OPERATION_CODES.iter().find(|(id, _)| *id == operation);
    let own = by_status(row.map_or(&[], |(_, codes)| codes));
    own.into_iter()
        .map(|(status, codes)| (status, name_of(&codes)))
        .chain(shared)
        .map(|(status, name)| {
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            (status.to_string(), reference)
        })
        .collect()
}

/// The responses that operations refer to: each is there once.
pub(crate) fn responses() -> Value {
    let shared = SHARED_CODES.iter().chain(&ANY_WITH_BODY);
    let shared = shared.map(|(name, codes)| ((*name).to_owned(), response(codes)));
    let own = OPERATION_CODES
        .iter()
        .flat_map(|(_, codes)| by_status(codes));
    let own = own.map(|(_, codes)| (name_of(&codes), response(&codes)));
    own.chain(shared).collect::<Map<_, _>>().into()
}

/// The codes of an operation's own by their statuses, with those that all such operations have in common.
fn by_status(own: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    // A path that names nothing that exists may also be no route at all: `%2F` in an id, say.
    let absent = own.iter().any(|code| code.status() == 404);
    let always = [Code::Validation, Code::InsufficientScope];
    for code in always
        .iter()
        .chain(own)
        .chain(absent.then_some(&Code::NotFound))
    {
        by_status.entry(code.status()).or_default().push(*code);
    }
    by_status
}

fn name_of(codes: &[Code]) -> String {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    names.join(".")
}

/// The schemas of refusals.
pub(crate) fn add_schemas(schemas: &mut Map<String, Value>) {
    let value = |schema| serde_json::to_value(schema).unwrap_or_default();
    schemas.insert("Code".to_owned(), value(Code::schema()));
    schemas.insert(FieldError::name().into_owned(), value(FieldError::schema()));
    schemas.insert("Problem".to_owned(), problem());
}

fn response(codes: &[Code]) -> Value {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let lines: Vec<_> = codes
        .iter()
        .map(|code| format!("`{code}`: {}.", code.title()))
        .collect();
    let schema = json!({
        "allOf": [{ "$ref": "#/components/schemas/Problem" }],
        "properties": { "code": { "enum": names } },
    });
    let content = json!({ "schema": schema, "examples": examples(codes) });
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
    let status = codes.first().map_or(0, |code| code.status());
    let more: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        429 => &["Retry-After", "RateLimit", "RateLimit-Policy"],
        503 => &["Retry-After"],
        _ => &[],
    };
    for name in more {
        headers[name] = json!({ "$ref": format!("#/components/headers/{name}") });
    }
    if codes.contains(&Code::DirectConversationExists) {
        headers["Location"] = json!({
            "description": "The direct conversation that is there (of DIRECT_CONVERSATION_EXISTS).",
            "schema": { "type": "string" },
        });
    }
    json!({
        "description": lines.join(" "),
        "headers": headers,
        "content": { "application/problem+json": &content, "application/json": &content },
    })
}

fn examples(codes: &[Code]) -> Value {
    let named = codes.iter().map(|code| {
        let name = code.as_str();
        (
            name.to_owned(),
            json!({ "$ref": format!("#/components/examples/{name}") }),
        )
    });
    named.collect::<Map<_, _>>().into()
}

/// How the refusal of each code might look.
pub(crate) fn all_examples() -> Value {
    let all = Code::ALL
        .iter()
        .map(|code| (code.to_string(), example(*code)));
    all.collect::<Map<_, _>>().into()
}

fn example(code: Code) -> Value {
    let mut value = json!({
        "type": format!("urn:confab:problem:{code}"),
        "title": code.title(),
        "status": code.status(),
        "detail": code.title(),
        "code": code,
        "requestId": "01890a5d-ac96-774b-bcce-b302099a8060",
    });
    match code {
        Code::Validation => {
            value["detail"] = json!("/kind: must be given");
            value["errors"] = json!([{ "pointer": "/kind", "message": "must be given" }]);
        }
        Code::TooManyConversations | Code::AlreadyParticipant => value["userIds"] = json!(["bob"]),
        Code::DirectConversationExists => {
            value["conversationId"] = json!("01890a5d-ac96-774b-bcce-b302099a8057");
        }
        Code::VersionConflict | Code::PreconditionFailed => value["currentVersion"] = json!(3),
        _ => {}
    }
    json!({ "value": value })
}

/// A refusal (RFC 9457), with the extension members of its code.
fn problem() -> Value {
    json!({
        "type": "object",
        "description": "A refusal (RFC 9457): branch on `code`.",
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "`urn:confab:problem:` and the code." },
            "title": { "type": "string", "description": "What the code means, the same each time." },
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": { "type": "string", "description": "What is wrong this time." },
            "code": { "$ref": "#/components/schemas/Code" },
            "requestId": { "type": "string", "description": "The request's id, as in X-Request-Id." },
            "errors": {
                "type": "array",
                "items": { "$ref": "#/components/schemas/FieldError" },
                "description": "Of VALIDATION_ERROR: the bad fields, the first 20 of them.",
            },
            "moreErrors": {
                "type": "integer",
                "minimum": 1,
                "description": "Of VALIDATION_ERROR: how many more bad fields there are; left out where all are named.",
            },
            "userIds": {
                "type": "array",
                "items": { "$ref": "#/components/schemas/UserId" },
                "description": "Of TOO_MANY_CONVERSATIONS and ALREADY_PARTICIPANT: whom it is about.",
            },
            "conversationId": {
                "$ref": "#/components/schemas/ConversationId",
                "description": "Of DIRECT_CONVERSATION_EXISTS: the one that is there.",
            },
            "currentVersion": {
                "type": "integer",
                "minimum": 1,
                "description": "Of VERSION_CONFLICT and PRECONDITION_FAILED: the present version.",
            },
        },
    })
}

/// The operations that have a row.
#[cfg(test)]
pub(crate) fn operations() -> impl Iterator<Item = &'static str> {
    OPERATION_CODES.iter().map(|(operation, _)| *operation)
}
