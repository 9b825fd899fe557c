//! The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header): quoted or bare, the same key.

use axum::http::HeaderMap;
use confab_protocol::error::{Code, Failure};
use confab_protocol::limits;

/// The key of a request, if it has one.
///
/// # Errors
/// `INVALID_IDEMPOTENCY_KEY` when it is not 1–255 visible ASCII characters, or there are several.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let invalid = || {
        Failure::new(
            Code::InvalidIdempotencyKey,
            "the key must be 1 to 255 visible ASCII characters, once",
        )
    };
    if values.next().is_some() {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_unprintable| invalid())?.trim();
    let key = unquote(text).ok_or_else(invalid)?;
    let visible = (1..=limits::IDEMPOTENCY_KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_graphic());
    if visible {
        Ok(Some(key))
    } else {
        Err(invalid())
    }
}

/// The string behind its quoted form (RFC 8941, section 3.3.3); a bare one is itself.
fn unquote(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else {
        return Some(text.to_owned());
    };
    let inner = rest.strip_suffix('"')?;
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => key.push(
                chars
                    .next()
                    .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            ),
            _ => key.push(c),
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_bare_keys_are_equal() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            key(&headers).map_err(|failure| failure.code)
        };
        assert_eq!(read("abc-1"), Ok(Some("abc-1".to_owned())));
        assert_eq!(read("\"abc-1\""), read("abc-1"));
        assert_eq!(read(r#""a\"b""#), Ok(Some("a\"b".to_owned())));
        for bad in ["", "\"\"", "\"a", "a b", &"x".repeat(256), r#""a\b""#] {
            assert_eq!(read(bad), Err(Code::InvalidIdempotencyKey), "{bad}");
        }
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }
}
