//! The fields of a message, the same in a `send` frame and in the body of `POST /v1/messages`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ids::EventId;
use crate::json::{Fields, JsonText};
use crate::limits;
use crate::resource::{MessageBody, MessageChange, MessageContent};

/// Reads a message's fields; what is wrong is noted in `fields`, and then there is none.
pub fn read_body(fields: &mut Fields<'_>) -> Option<MessageBody> {
    let given = fields.require::<String>("kind");
    if given.as_deref().is_some_and(|kind| !is_kind(kind)) {
        fields.reject("kind", KIND_RULE);
    }
    let kind = given.filter(|kind| is_kind(kind));
    let content = read_content(fields);
    let reply_to = fields.take::<EventId>("replyTo");
    let metadata = fields
        .object("metadata", limits::MESSAGE_METADATA)
        .unwrap_or_else(JsonText::empty_object);
    Some(MessageBody {
        kind: kind?,
        content: content.content,
        encrypted_content: content.encrypted_content,
        payload_size_bytes: content.payload_size_bytes,
        reply_to,
        metadata,
    })
}

/// Reads the one content of a message; what is wrong is noted in `fields`.
pub fn read_content(fields: &mut Fields<'_>) -> MessageContent {
    read_given(fields).unwrap_or_else(|| {
        fields.reject("content", "must be given, or encryptedContent");
        MessageContent::default()
    })
}

/// Reads what an edit changes: the content, members of the metadata, or both; what is wrong is noted in `fields`.
pub fn read_change(fields: &mut Fields<'_>) -> MessageChange {
    let has_metadata = fields
        .peek("metadata")
        .is_some_and(|raw| raw.get() != "null");
    let metadata = fields.object("metadata", limits::MESSAGE_METADATA);
    let content = if has_metadata {
        read_given(fields)
    } else {
        Some(read_content(fields))
    };
    MessageChange { content, metadata }
}

/// The content of a message, where one is given.
fn read_given(fields: &mut Fields<'_>) -> Option<MessageContent> {
    // One that is there and bad has an error of its own.
    let is_given = |name| fields.peek(name).is_some_and(|raw| raw.get() != "null");
    let given = (is_given("content"), is_given("encryptedContent"));
    let content = fields.text("content", limits::MAX_CONTENT_BYTES);
    let encrypted_content = fields.take::<String>("encryptedContent");
    let stated = fields.integer("payloadSizeBytes");
    match given {
        (true, true) => fields.reject("encryptedContent", "must not be given beside content"),
        (_, false) if stated.is_some() => {
            fields.reject("payloadSizeBytes", "goes with encryptedContent");
        }
        (_, false) | (false, true) => {}
    }
    let payload_size_bytes = match (&content, &encrypted_content) {
        (None, Some(encrypted)) => decoded_size(fields, encrypted, stated),
        _ => None,
    };
    let content = MessageContent {
        content,
        encrypted_content,
        payload_size_bytes,
    };
    (given != (false, false)).then_some(content)
}

/// The rule for a message's kind, in words for the caller.
pub const KIND_RULE: &str =
    "must be text, image, file, audio, video or x-… of at most 64 of a-z 0-9 . _ -";

/// Returns true if a message may be of this kind.
#[must_use]
pub fn is_kind(kind: &str) -> bool {
    let own = kind.strip_prefix("x-").is_some_and(|rest| {
        (1..=62).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    });
    own || matches!(kind, "text" | "image" | "file" | "audio" | "video")
}

fn decoded_size(fields: &mut Fields<'_>, encrypted: &str, stated: Option<u64>) -> Option<u64> {
    if encrypted.len() > limits::ENCRYPTED_CONTENT.div_ceil(3) * 4 {
        fields.reject("encryptedContent", "must be at most 256 KiB, decoded");
        return None;
    }
    let Ok(decoded) = STANDARD.decode(encrypted) else {
        fields.reject(
            "encryptedContent",
            "must be base64 (RFC 4648 section 4, padded)",
        );
        return None;
    };
    let size = decoded.len() as u64;
    if decoded.len() > limits::ENCRYPTED_CONTENT {
        fields.reject("encryptedContent", "must be at most 256 KiB, decoded");
    }
    if stated.is_some_and(|stated| stated != size) {
        fields.reject(
            "payloadSizeBytes",
            "must be the decoded size of encryptedContent",
        );
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MessageBody, Vec<String>> {
        let mut fields = Fields::parse(json.as_bytes()).unwrap();
        let body = read_body(&mut fields);
        let pointers =
            |f: crate::error::Failure| f.extension.errors.into_iter().map(|e| e.pointer).collect();
        fields.finish().map_err(pointers).map(|()| body.unwrap())
    }

    #[test]
    fn a_message_has_exactly_one_content() {
        assert!(read(r#"{"kind":"text","content":{"a":1}}"#).is_ok());
        assert_eq!(
            read(r#"{"kind":"x-a.b","encryptedContent":"AAEC"}"#)
                .unwrap()
                .payload_size_bytes,
            Some(3)
        );
        assert_eq!(read(r#"{"kind":"text"}"#).unwrap_err(), ["/content"]);
        assert_eq!(
            read(r#"{"kind":"text","content":"\u0000"}"#).unwrap_err(),
            ["/content"]
        );
        assert_eq!(
            read(r#"{"kind":"text","encryptedContent":1,"payloadSizeBytes":1}"#).unwrap_err(),
            ["/encryptedContent"]
        );
        assert_eq!(
            read(r#"{"kind":"text","content":1,"encryptedContent":"AA=="}"#).unwrap_err(),
            ["/encryptedContent"]
        );
        assert_eq!(
            read(r#"{"kind":"nope","metadata":1,"replyTo":null}"#).unwrap_err(),
            ["/kind", "/content", "/metadata"]
        );
        assert_eq!(
            read(r#"{"kind":"text","encryptedContent":"*"}"#).unwrap_err(),
            ["/encryptedContent"]
        );
        assert_eq!(
            read(r#"{"kind":"text","encryptedContent":"AAEC","payloadSizeBytes":4}"#).unwrap_err(),
            ["/payloadSizeBytes"]
        );
    }

    #[test]
    fn sizes_are_bounded_where_the_contract_says() {
        let content = |n: usize| format!(r#"{{"kind":"text","content":"{}"}}"#, "a".repeat(n - 2));
        assert!(read(&content(limits::MAX_CONTENT_BYTES)).is_ok());
        assert_eq!(
            read(&content(limits::MAX_CONTENT_BYTES + 1)).unwrap_err()[0],
            "/content"
        );
        let encrypted = |n: usize| {
            format!(
                r#"{{"kind":"text","encryptedContent":"{}"}}"#,
                STANDARD.encode(vec![0; n])
            )
        };
        assert!(read(&encrypted(limits::ENCRYPTED_CONTENT)).is_ok());
        assert_eq!(
            read(&encrypted(limits::ENCRYPTED_CONTENT + 1)).unwrap_err(),
            ["/encryptedContent"]
        );
    }
}
