//! Whether a repeat is what was sent first: it is compared with what stands, by what both say.

use confab_protocol::json::Canonical;

/// Whether two bodies of a message say the same. A field that is absent is one that has its default, so that a field which a later version
/// adds does not make another message of a repeat.
pub(crate) fn is_same_body(stored: &str, given: &str) -> bool {
    let said = |text| {
        let Some(Canonical::Object(mut fields)) = Canonical::read(text) else {
            return None;
        };
        fields.retain(|(name, value)| !is_default(name, value));
        Some(Canonical::Object(fields))
    };
    let both = || Some((said(stored)?, said(given)?));
    stored == given || both().is_some_and(|(stored, given)| stored.is_same(&given))
}

/// Whether two JSON texts say the same.
pub(crate) fn is_same_json(one: &str, other: &str) -> bool {
    let both = || Some((Canonical::read(one)?, Canonical::read(other)?));
    one == other || both().is_some_and(|(one, other)| one.is_same(&other))
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
}
