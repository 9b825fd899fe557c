//! Where tests make the worker die. A release has none of it.

use confab_protocol::command::Request;

/// Whether the worker dies between the commit and the publishing of a message of kind `x-fault`.
pub(crate) const fn exits_after_commit() -> bool {
    cfg!(feature = "fault-points")
}

/// Whether the worker dies between the commit of a command and its answer: of a request whose id begins with `x-fault`.
pub(crate) fn exits_before_answer(request: &Request) -> bool {
    cfg!(feature = "fault-points") && request.request_id.starts_with("x-fault")
}
