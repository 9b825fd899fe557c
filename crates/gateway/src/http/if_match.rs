//! The If-Match header of a metadata change: the version that the conversation must have (docs/protocol.md, "Versions").

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use confab_protocol::error::{Code, Failure};

/// The version asked for; none where any will do.
///
/// # Errors
/// `INVALID_IF_MATCH` when it is no `"<version>"`, bare number or `*`, or there are several.
pub(super) fn version(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let invalid = || {
        Failure::new(
            Code::InvalidIfMatch,
            "If-Match must be one version, quoted or bare, or *",
        )
    };
    if values.next().is_some() {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_unprintable| invalid())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let number = quoted.unwrap_or(text);
    // As it stands in `version`: no sign, no leading zero.
    let version = number.parse::<u64>().ok();
    version
        .filter(|version| version.to_string() == number)
        .map(Some)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<u64>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, value.parse().unwrap());
        }
        version(&headers).map_err(|failure| failure.code)
    }

    #[test]
    fn one_version_quoted_or_bare_or_any() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["*"]), Ok(None));
        assert_eq!(read(&["3"]), Ok(Some(3)));
        assert_eq!(read(&[" \"3\" "]), Ok(Some(3)));
        for bad in [
            "",
            "\"\"",
            "\"*\"",
            "\"3",
            "W/\"3\"",
            "\"1\", \"2\"",
            "1,2",
            "+1",
            "-1",
            "03",
            "x",
            "1.0",
            "18446744073709551616",
        ] {
            assert_eq!(read(&[bad]), Err(Code::InvalidIfMatch), "{bad}");
        }
        assert_eq!(read(&["1", "1"]), Err(Code::InvalidIfMatch));
    }
}
