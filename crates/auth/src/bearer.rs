//! The Authorization header (RFC 6750 section 2.1).

use crate::error::{AuthError, Defect};

/// The bearer token of a request, from the values of all its Authorization headers.
///
/// # Errors
/// [`AuthError::Missing`] without a header, with another scheme or an empty token; [`AuthError::Invalid`] with two
/// headers, or a token that is not text.
pub fn bearer<'a>(
    authorization_headers: impl IntoIterator<Item = &'a [u8]>,
) -> Result<&'a str, AuthError> {
    let mut headers = authorization_headers.into_iter();
    let header = headers.next().ok_or(AuthError::Missing)?;
    if headers.next().is_some() {
        return Err(Defect::TwoHeaders.into());
    }
    let (scheme, rest) = match header.iter().position(|byte| *byte == b' ') {
        Some(space) => header.split_at(space),
        None => (header, &[][..]),
    };
    let token = rest.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() {
        return Err(AuthError::Missing);
    }
    std::str::from_utf8(token).map_err(|_not_text| Defect::NotCompact.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[&'static str]) -> Result<&'static str, AuthError> {
        bearer(headers.iter().map(|header| header.as_bytes()))
    }

    #[test]
    fn the_scheme_is_read_without_regard_to_case() {
        for header in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(of(&[header]), Ok("a.b.c"));
        }
    }

    #[test]
    fn absent_foreign_or_empty_header_is_missing_token() {
        for headers in [
            &[][..],
            &["Basic a"],
            &["Bearer"],
            &["Bearer "],
            &["a.b.c"],
            &[""],
        ] {
            assert_eq!(of(headers), Err(AuthError::Missing), "{headers:?}");
        }
    }

    #[test]
    fn two_equal_headers_are_invalid_token() {
        assert_eq!(
            of(&["Bearer a", "Bearer a"]),
            Err(Defect::TwoHeaders.into())
        );
        assert_eq!(of(&["Basic a", "Bearer a"]), Err(Defect::TwoHeaders.into()));
    }

    #[test]
    fn non_text_header_is_invalid_token() {
        assert_eq!(
            bearer([&b"Bearer \xff"[..]]),
            Err(Defect::NotCompact.into())
        );
    }
}
