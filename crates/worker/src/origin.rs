//! Where a command or query came from, for the log.

use confab_protocol::command::Request;
use confab_protocol::trace::TraceParent;
use tracing::{Span, error_span};

/// The request that a command came with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// Its id, which the client was told.
    pub(crate) request_id: String,
    /// The W3C trace context's `traceparent`, where the caller gave one.
    pub(crate) traceparent: Option<String>,
}

impl Origin {
    /// A span that names the request. Sends are too many for one each: it is only made for them where there is something to log.
    pub(crate) fn span(&self, operation: &'static str) -> Span {
        span(&self.request_id, self.traceparent.as_deref(), operation)
    }
}

/// A span that names a command's request.
pub(crate) fn span_of(request: &Request) -> Span {
    let traceparent = request.traceparent.as_deref();
    span(&request.request_id, traceparent, request.command.name())
}

/// A span that names a request. It is one of errors, so that no level of the log is without it.
pub(crate) fn span(request_id: &str, traceparent: Option<&str>, operation: &'static str) -> Span {
    let parent = traceparent.and_then(TraceParent::parse);
    error_span!(
        "request",
        request.id = %request_id,
        operation = %operation,
        trace_id = parent.map(|parent| display(parent.trace_id)),
        span_id = parent.map(|parent| display(parent.span_id)),
    )
}
