//! The loads, each with what it measures.

pub(crate) mod history;
pub(crate) mod send;
