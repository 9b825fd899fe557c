//! The one table of error codes: each with its HTTP status, WebSocket close code, and whether trying again helps.

use serde::{Deserialize, Serialize};

use crate::ids::{ConversationId, UserId};

mod fields;

pub use fields::{FieldError, FieldErrors};

/// One row of the table.
struct CodeRow {
    name: &'static str,
    status: u16,
    title: &'static str,
    retryable: bool,
}

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $retryable:literal $title:literal;)*) => {
        /// A stable error code, the same on HTTP and WebSocket (docs/protocol/errors.md).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            const fn row(self) -> CodeRow {
                match self {
                    $(Self::$variant => CodeRow { name: $name, status: $status, title: $title, retryable: $retryable },)*
                }
            }
        }
    };
}

codes! {
    Validation "VALIDATION_ERROR" 400 false "The request is not valid";
    InvalidCursor "INVALID_CURSOR" 400 false "The cursor is not one of ours";
    InvalidIfMatch "INVALID_IF_MATCH" 400 false "If-Match is not a version";
    InvalidDirectConversation "INVALID_DIRECT_CONVERSATION" 400 false "A direct conversation has its two members listed, the caller among them";
    InvalidIdempotencyKey "INVALID_IDEMPOTENCY_KEY" 400 false "The Idempotency-Key is not valid";
    MissingToken "MISSING_TOKEN" 401 false "A bearer token is required";
    InvalidToken "INVALID_TOKEN" 401 false "The token is not valid";
    TokenExpired "TOKEN_EXPIRED" 401 false "The token has expired";
    TokenNotYetValid "TOKEN_NOT_YET_VALID" 401 false "The token is not valid yet";
    TokenRevoked "TOKEN_REVOKED" 401 false "The token was revoked";
    InsufficientPermissions "INSUFFICIENT_PERMISSIONS" 403 false "The member's role does not allow this";
    InsufficientScope "INSUFFICIENT_SCOPE" 403 false "The token's scope does not allow this";
    OriginForbidden "ORIGIN_FORBIDDEN" 403 false "The origin is not allowed";
    NotFound "NOT_FOUND" 404 false "There is no such route";
    ConversationNotFound "CONVERSATION_NOT_FOUND" 404 false "There is no such conversation for this user";
    ParticipantNotFound "PARTICIPANT_NOT_FOUND" 404 false "There is no such participant";
    MessageNotFound "MESSAGE_NOT_FOUND" 404 false "There is no such message for this user";
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405 false "The route does not know this method";
    NotAcceptable "NOT_ACCEPTABLE" 406 false "No acceptable representation";
    VersionConflict "VERSION_CONFLICT" 409 false "The version is another";
    AlreadyParticipant "ALREADY_PARTICIPANT" 409 false "The user is a participant already";
    LastAdmin "LAST_ADMIN" 409 false "The last admin cannot step down";
    ConversationFull "CONVERSATION_FULL" 409 false "The conversation has no room for more members";
    TooManyConversations "TOO_MANY_CONVERSATIONS" 409 false "The user is in too many conversations";
    DirectConversationExists "DIRECT_CONVERSATION_EXISTS" 409 false "The two users have a direct conversation already";
    DirectConversationFixed "DIRECT_CONVERSATION_FIXED" 409 false "The members of a direct conversation do not change";
    IdempotencyInProgress "IDEMPOTENCY_IN_PROGRESS" 409 true "A request with this key is still running";
    ConversationDeleted "CONVERSATION_DELETED" 410 false "The conversation was deleted";
    PreconditionFailed "PRECONDITION_FAILED" 412 false "The message has another version";
    PayloadTooLarge "PAYLOAD_TOO_LARGE" 413 false "The body is too large";
    UriTooLong "URI_TOO_LONG" 414 false "The URI is too long";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" 415 false "The media type is not supported";
    IdempotencyKeyReused "IDEMPOTENCY_KEY_REUSED" 422 false "The key was used for another request";
    UpgradeRequired "UPGRADE_REQUIRED" 426 false "WebSocket version 13 is required";
    RateLimited "RATE_LIMITED" 429 true "Too many requests";
    HeadersTooLarge "HEADERS_TOO_LARGE" 431 false "The request has too many headers, or too large ones";
    SlowConsumer "SLOW_CONSUMER" 500 true "The client took its events too slowly";
    SessionReplaced "SESSION_REPLACED" 409 false "The session was resumed elsewhere";
    HelloTimeout "HELLO_TIMEOUT" 408 true "No hello came in time";
    BadFrames "BAD_FRAMES" 400 false "Too many bad frames";
    Internal "INTERNAL" 500 true "Something failed inside";
    Unavailable "UNAVAILABLE" 503 true "A part of the service is away";
    Overloaded "OVERLOADED" 503 true "The service has more to do than it can do in time";
    AuthUnavailable "AUTH_UNAVAILABLE" 503 true "No key set could be loaded yet";
    Timeout "TIMEOUT" 504 true "No answer came in time; the outcome is unknown";
}

impl Code {
    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The HTTP status (RFC 9110) that carries this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// A short text for people, the same for every occurrence (RFC 9457 `title`).
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// Returns true if the same request may succeed later.
    #[must_use]
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// The WebSocket close code (RFC 6455 section 7.4) of a connection that ends with this code.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::MissingToken
            | Self::InvalidToken
            | Self::TokenExpired
            | Self::TokenNotYetValid => 4401,
            Self::TokenRevoked | Self::OriginForbidden | Self::InsufficientScope => 4403,
            Self::HelloTimeout => 4408,
            Self::SessionReplaced => 4409,
            Self::RateLimited => 4429,
            Self::SlowConsumer => 4440,
            Self::BadFrames | Self::Validation => 4400,
            Self::PayloadTooLarge => 1009,
            Self::Overloaded | Self::Unavailable | Self::AuthUnavailable | Self::Timeout => 1013,
            _ => 1011,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An extension member of a problem (docs/protocol/errors.md, "Form").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// The bad fields of a `VALIDATION_ERROR`, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// How many more bad fields there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_errors: u64,
    /// Whom `TOO_MANY_CONVERSATIONS` or `ALREADY_PARTICIPANT` is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_ids: Vec<UserId>,
    /// The conversation that `DIRECT_CONVERSATION_EXISTS` found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    /// The version that `VERSION_CONFLICT` or `PRECONDITION_FAILED` found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
}

/// A refusal: what a command, a query or a frame is answered with when it is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which refusal.
    pub code: Code,
    /// What is wrong this time, for the caller's eyes.
    pub detail: String,
    /// After how many milliseconds trying again makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What else the code says.
    #[serde(default)]
    pub extension: Box<Extension>,
    /// True if it was decided before, when the request's key was first used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

impl Failure {
    /// A refusal with its text.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_ms: None,
            extension: Box::default(),
            replayed: false,
        }
    }

    /// A refusal in the code's own words.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self::new(code, code.title())
    }

    /// A `VALIDATION_ERROR` that names bad fields.
    #[must_use]
    pub fn validation(errors: impl Into<FieldErrors>) -> Self {
        let errors = errors.into();
        let detail = errors.detail();
        let (errors, more_errors) = errors.into_parts();
        let extension = Box::new(Extension {
            errors,
            more_errors,
            ..Extension::default()
        });
        Self {
            extension,
            ..Self::new(Code::Validation, detail)
        }
    }

    /// A `VALIDATION_ERROR` of one field.
    #[must_use]
    pub fn field(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError::new(pointer, message)])
    }

    /// The same, with what else the code says.
    #[must_use]
    pub fn with(self, extension: Extension) -> Self {
        Self {
            extension: Box::new(extension),
            ..self
        }
    }

    /// The same, to be tried again after `ms` milliseconds.
    #[must_use]
    pub fn retry_after(self, ms: u64) -> Self {
        Self {
            retry_after_ms: Some(ms),
            ..self
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_name_on_the_wire() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("{:?}", code.as_str()));
        }
    }

    #[test]
    fn a_validation_failure_names_its_only_field() {
        let failure = Failure::field("/kind", "must be given");
        assert_eq!(
            failure.to_string(),
            "VALIDATION_ERROR: /kind: must be given"
        );
    }
}
