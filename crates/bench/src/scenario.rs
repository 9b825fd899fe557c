//! The loads, each with what it measures.

pub(crate) mod send;
