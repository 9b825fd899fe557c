//! The loads, each with what it measures.

pub(crate) mod fanout;
pub(crate) mod history;
pub(crate) mod idle;
pub(crate) mod neighbours;
pub(crate) mod resume;
pub(crate) mod send;
