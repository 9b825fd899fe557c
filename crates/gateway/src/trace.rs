//! The trace that a request belongs to, as its caller says (W3C trace context).

use axum::http::HeaderMap;
use confab_protocol::trace::TraceParent;

/// The longest value that is passed on: later versions of the header may be longer than today's 55 bytes.
const MAX_LENGTH_BYTES: usize = 128;

/// The `traceparent` of a request, where there is exactly one and it is valid.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    let is_valid = values.next().is_none()
        && value.len() <= MAX_LENGTH_BYTES
        && TraceParent::parse(value).is_some();
    is_valid.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_one_valid_header_counts() {
        let headers = |values: &[&str]| {
            let named = |value: &&str| ("traceparent".parse().unwrap(), value.parse().unwrap());
            values.iter().map(named).collect::<HeaderMap>()
        };
        assert_eq!(traceparent(&headers(&[VALID])), Some(VALID));
        assert_eq!(traceparent(&headers(&[])), None);
        assert_eq!(traceparent(&headers(&[VALID, VALID])), None);
        assert_eq!(traceparent(&headers(&["00-1-2-3"])), None);
    }
}
