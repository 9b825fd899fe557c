//! The loads, each with what it measures.

pub(crate) mod fanout;
pub(crate) mod send;
