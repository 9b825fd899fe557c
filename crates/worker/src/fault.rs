//! Where tests make the worker die. A release has none of it.

/// Whether the worker dies between the commit and the publishing of a message of kind `x-fault`.
pub(crate) const fn exits_after_commit() -> bool {
    cfg!(feature = "fault-points")
}
