//! Schemas (JSON Schema 2020-12) of what the types say too little of: ids, times, texts with bounds, kept JSON.

use std::borrow::Cow;

use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::error::Code;
use crate::event::EventType;
use crate::ids::{ClientId, ConversationId, EventId, SessionId, UserId};
use crate::limits;
use crate::timestamp::Timestamp;

/// The pattern of a message's `kind`.
pub const KIND_PATTERN: &str = "^(text|image|file|audio|video|x-[a-z0-9._-]{1,62})$";
/// Base64 (RFC 4648 section 4), padded, without stray bits at its end.
pub const BASE64_PATTERN: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
/// A text without control characters: a user id, a login.
pub const PRINTABLE_PATTERN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A type with a name and a schema of its own.
macro_rules! named {
    ($($type:ident => $schema:expr;)*) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    $schema.into()
                }
            }

            impl ToSchema for $type {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($type))
                }
            }
        )*
    };
}

named! {
    UserId => text()
        .min_length(Some(1))
        .max_length(Some(128))
        .pattern(Some(PRINTABLE_PATTERN))
        .description(Some("A user: the `sub` of its tokens, opaque. At most 128 characters, none of them a control character."))
        .examples(["alice"])
        .build();
    ConversationId => id("A conversation (UUIDv7).", "01890a5d-ac96-774b-bcce-b302099a8057");
    EventId => id("An event (UUIDv7); of a `message.created` it is the message's id.", "01890a5d-ac96-774b-bcce-b302099a8058");
    ClientId => id("The sender's id of a message: a repeat with the same one is stored once, for good.", "0190163d-8694-739b-aea5-966c26f8ad91");
    SessionId => id("A session: one connection's life across resumes (UUIDv7).", "01890a5d-ac96-774b-bcce-b302099a8059");
    Timestamp => text()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("A point in time: RFC 3339, UTC, with milliseconds."))
        .examples(["2026-11-23T10:20:30.123Z"])
        .build();
    EventType => text()
        .enum_values(Some(EventType::ALL.iter().map(|name| name.as_str())))
        .description(Some("What an event says."))
        .build();
    Code => text()
        .enum_values(Some(Code::ALL.iter().map(|code| code.as_str())))
        .description(Some("A stable error code, the same on HTTP and WebSocket."))
        .build();
}

fn id(description: &str, example: &str) -> Object {
    text()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .description(Some(description))
        .examples([example])
        .build()
}

/// A message's `content`.
#[must_use]
pub fn content() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![
            Type::Object,
            Type::Array,
            Type::String,
            Type::Number,
            Type::Boolean,
        ]))
        .description(Some(
            "The content in clear: any JSON but null, of at most 64 KiB without white space and needless escapes, kept byte for byte where it is no longer as it is written. No object in it has a member twice, and no integer more than 64 bits.",
        ))
        .examples([serde_json::json!({"text": "hello"})])
        .build()
}

/// A message's `content` where a list shows it.
#[must_use]
pub fn preview_content() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(
            "Its content where that is in clear and at most 1 KiB without white space and needless escapes, else null.",
        ))
        .build()
}

/// An object whose members are the client's own.
fn open_object() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

/// A message's `kind`.
#[must_use]
pub fn message_kind() -> Object {
    text()
        .pattern(Some(KIND_PATTERN))
        .description(Some(
            "`text`, `image`, `file`, `audio`, `video`, or one of the product's own: `x-` and up to 62 of `a-z 0-9 . _ -`.",
        ))
        .examples(["text"])
        .build()
}

/// A message's `metadata`.
#[must_use]
pub fn message_metadata() -> Object {
    open_object()
        .description(Some(
            "The sender's own fields, kept byte for byte: a JSON object of at most 16 KiB; `{}` where none were given.",
        ))
        .build()
}

/// A message's `encryptedContent`.
#[must_use]
pub fn encrypted_content() -> Object {
    text()
        .pattern(Some(BASE64_PATTERN))
        .max_length(Some(limits::ENCRYPTED_CONTENT.div_ceil(3) * 4))
        .description(Some(
            "The content encrypted, in base64 (RFC 4648 section 4, padded): at most 256 KiB, decoded.",
        ))
        .examples(["AAEC"])
        .build()
}

/// A conversation's `name`.
#[must_use]
pub fn conversation_name() -> Object {
    text()
        .max_length(Some(limits::NAME_CHARS))
        // With a character that is neither white space nor a control character.
        .pattern(Some(r"[^\s\u0000-\u001f\u007f-\u009f]"))
        .description(Some("What people call it: not blank."))
        .build()
}

/// A conversation's `description`.
#[must_use]
pub fn conversation_description() -> Object {
    text()
        .max_length(Some(limits::DESCRIPTION_CHARS))
        .description(Some("What it is about."))
        .build()
}

/// A conversation's `avatar`.
#[must_use]
pub fn conversation_avatar() -> Object {
    text()
        .max_length(Some(limits::AVATAR_CHARS))
        .format(Some(SchemaFormat::Custom("iri".to_owned())))
        .pattern(Some("^[Hh][Tt][Tt][Pp][Ss]?://"))
        .description(Some("Where its picture is: an http or https URL, whose host may be an internationalised name."))
        .build()
}

/// A conversation's `custom`.
#[must_use]
pub fn conversation_custom() -> Object {
    open_object()
        .description(Some(
            "The product's own fields: a JSON object of at most 16 KiB.",
        ))
        .build()
}

/// A conversation's `metadata`, as it is read.
#[must_use]
pub fn conversation_metadata() -> Object {
    ObjectBuilder::new()
        .property("name", conversation_name())
        .property("description", conversation_description())
        .property("avatar", conversation_avatar())
        .property("custom", conversation_custom())
        .description(Some(
            "Only what was given is there; `{}` where nothing was.",
        ))
        .build()
}

/// Returns what a client may say of its user's presence.
#[must_use]
pub fn own_presence() -> Object {
    text()
        .enum_values(Some(["online", "away"]))
        .description(Some("Whether the user is there."))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json<T: PartialSchema>() -> String {
        serde_json::to_string(&T::schema()).unwrap()
    }

    #[test]
    fn wire_names_equal_schema_names() {
        for code in Code::ALL {
            assert!(json::<Code>().contains(code.as_str()), "{code}");
        }
        for event_type in EventType::ALL {
            let name = serde_json::to_string(event_type).unwrap();
            assert!(json::<EventType>().contains(&name), "{name}");
        }
        for role in ["member", "admin"] {
            assert!(json::<crate::resource::Role>().contains(role));
        }
        for status in ["offline", "away", "online"] {
            assert!(json::<crate::signal::PresenceStatus>().contains(status));
        }
    }
}
