//! What the parts can do alone, measured by the simplest program that does only that.

pub(crate) mod bare;
