//! Whether a repeat is what was sent first: it is compared with what stands, by what both say.

use confab_protocol::json::Canonical;

/// The fields of a message that an edit replaces.
const CONTENT: [&str; 3] = ["content", "encryptedContent", "payloadSizeBytes"];

/// Whether two bodies of a message say the same. A field that is absent is one that has its default, so that a field which a later version
/// adds does not make another message of a repeat.
pub(crate) fn is_same_body(stored: &str, given: &str) -> bool {
    is_same(stored, given, |_| true)
}

/// Whether a message's body has this content.
pub(crate) fn has_content(stored: &str, content: &str) -> bool {
    is_same(stored, content, |name| CONTENT.contains(&name))
}

fn is_same(stored: &str, given: &str, counts: impl Fn(&str) -> bool) -> bool {
    let said = |text| {
        let Some(Canonical::Object(mut fields)) = Canonical::read(text) else {
            return None;
        };
        fields.retain(|(name, value)| counts(name) && !is_default(name, value));
        Some(Canonical::Object(fields))
    };
    let both = || Some((said(stored)?, said(given)?));
    stored == given || both().is_some_and(|(stored, given)| stored.is_same(&given))
}

/// Whether a field's absence says the same.
fn is_default(name: &str, value: &Canonical<'_>) -> bool {
    match value {
        Canonical::Null => true,
        Canonical::Object(members) => name == "metadata" && members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_have_their_defaults() {
        let long = r#"{"kind":"text","content":{"a":null},"payloadSizeBytes":null,"replyTo":null,"metadata":{},"added":null}"#;
        let short = r#"{"content":{"a":null},"kind":"text"}"#;
        assert!(is_same_body(long, short));
        for other in [
            r#"{"content":{},"kind":"text"}"#,
            r#"{"content":{"a":null},"kind":"image"}"#,
            r#"{"content":{"a":null},"kind":"text","metadata":{"m":null}}"#,
            r#"{"content":{"a":null},"kind":"text","replyTo":"019ad000-0000-7000-8000-000000000000"}"#,
            r#"{"content":{"a":null},"kind":"text","added":false}"#,
            "[]",
        ] {
            assert!(!is_same_body(long, other), "{other}");
            assert!(!is_same_body(other, long), "{other}");
        }
    }

    #[test]
    fn a_content_is_compared_apart_from_the_rest() {
        let body = r#"{"kind":"text","content":1.0,"replyTo":null,"metadata":{"m":1}}"#;
        assert!(has_content(
            body,
            r#"{"content":1,"payloadSizeBytes":null}"#
        ));
        assert!(!has_content(
            body,
            r#"{"content":2,"payloadSizeBytes":null}"#
        ));
        let encrypted = r#"{"encryptedContent":"AAEC","payloadSizeBytes":3}"#;
        assert!(!has_content(body, encrypted));
    }
}
