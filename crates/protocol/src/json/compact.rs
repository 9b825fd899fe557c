//! JSON in its shortest form: sizes are measured on what a text says, not on how it is written.

/// The text without white space between tokens and without escapes that JSON does not demand; none where it is not JSON. Numbers and the order of
/// members stay as they are.
#[must_use]
pub fn compact(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        let (before, from_quote) = rest.split_at_checked(at)?;
        push_without_space(&mut out, before);
        let (string, behind) = split_string(from_quote)?;
        if string.contains('\\') {
            let plain: String = serde_json::from_str(string).ok()?;
            out.push_str(&serde_json::to_string(&plain).ok()?);
        } else {
            out.push_str(string);
        }
        rest = behind;
    }
    push_without_space(&mut out, rest);
    Some(out)
}

fn push_without_space(out: &mut String, tokens: &str) {
    out.extend(tokens.split([' ', '\t', '\n', '\r']));
}

/// The string with its quotes, and what is behind it.
fn split_string(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    let inner = text.strip_prefix('"')?;
    let length = inner.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    text.split_at_checked(length + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn compact_form_drops_only_escapes_and_space() {
        for (text, short) in [
            (" { \"a\" : [ 1.0 ,\n2 ] }\t", r#"{"a":[1.0,2]}"#),
            (r#""\u65e5\u672c \/ \u0041""#, r#""日本 / A""#),
            (r#"{"\u0061 b":" x "}"#, r#"{"a b":" x "}"#),
            (r#""\"\\\n\u0001""#, r#""\"\\\n\u0001""#),
            (r#""\ud83d\ude00\\""#, r#""😀\\""#),
            ("null", "null"),
        ] {
            assert_eq!(compact(text).as_deref(), Some(short), "{text}");
        }
        assert_eq!(compact(r#"{"a"#), None);
        assert_eq!(compact(r#""\ud800""#), None);
    }

    proptest! {
        #[test]
        fn short_form_is_what_serde_writes(text in "[a\"\\\\/é\u{1}\n 😀]{0,12}") {
            let value = serde_json::json!({ "k": [text, { "a": 1 }] });
            let pretty = format!("{value:#}").replace('/', "\\/");
            prop_assert_eq!(compact(&pretty).unwrap(), value.to_string());
        }

        #[test]
        fn short_form_says_the_same(text in "\\PC{0,24}") {
            let json = Value::from(text).to_string();
            prop_assert_eq!(compact(&json).unwrap(), json);
        }
    }
}
