//! The W3C trace context's `traceparent` (<https://www.w3.org/TR/trace-context/>): which trace a request belongs to.

/// The length of a `traceparent` of version 00; later versions may append to it.
const LENGTH_BYTES: usize = 55;

/// The ids that a valid `traceparent` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The trace: 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The caller's span, the parent of what is done for it: 16 hexadecimal digits.
    pub span_id: &'a str,
}

impl<'a> TraceParent<'a> {
    /// Reads the header's value; none where it is not valid, and then is to be ignored (section 3.2.2.3 to 3.2.2.5).
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (trace_id, rest) = rest.split_once('-')?;
        let (span_id, rest) = rest.split_once('-')?;
        let flags = rest.split('-').next()?;
        let is_known = version == "00" && text.len() == LENGTH_BYTES;
        // Of a later version the parts that are known count, whatever stands behind them.
        let is_later = version != "00" && version != "ff";
        let is_valid = (is_known || is_later)
            && is_hex(version, 2)
            && is_id(trace_id, 32)
            && is_id(span_id, 16)
            && is_hex(flags, 2);
        is_valid.then_some(Self { trace_id, span_id })
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == length && text.bytes().all(is_digit)
}

fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN_ID: &str = "00f067aa0ba902b7";

    #[test]
    fn valid_values_name_trace_and_span() {
        let parsed = Some(TraceParent {
            trace_id: TRACE_ID,
            span_id: SPAN_ID,
        });
        for text in [
            format!("00-{TRACE_ID}-{SPAN_ID}-01"),
            format!("00-{TRACE_ID}-{SPAN_ID}-00"),
            format!("cc-{TRACE_ID}-{SPAN_ID}-01"),
            format!("cc-{TRACE_ID}-{SPAN_ID}-01-what-comes"),
        ] {
            assert_eq!(TraceParent::parse(&text), parsed, "{text}");
        }
    }

    #[test]
    fn invalid_values_are_ignored() {
        for text in [
            String::new(),
            "-".repeat(LENGTH_BYTES),
            format!("ff-{TRACE_ID}-{SPAN_ID}-01"),
            format!("00-{}-{SPAN_ID}-01", TRACE_ID.to_uppercase()),
            format!("00-{}-{SPAN_ID}-01", "0".repeat(32)),
            format!("00-{TRACE_ID}-{}-01", "0".repeat(16)),
            format!("00-{TRACE_ID}-{SPAN_ID}"),
            format!("00-{TRACE_ID}-{SPAN_ID}-1"),
            format!("00-{TRACE_ID}-{SPAN_ID}-01-more"),
            format!("cc-{TRACE_ID}-{SPAN_ID}-01.more"),
            format!("0-{TRACE_ID}-{SPAN_ID}-001"),
            format!(" 00-{TRACE_ID}-{SPAN_ID}-01"),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text}");
        }
    }
}
