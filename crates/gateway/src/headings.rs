//! The headings of the flags in `--help`.

pub(crate) const CLIENTS: &str = "Clients";
pub(crate) const LIMITS: &str = "Limits of clients";
pub(crate) const TIMES: &str = "Times";
pub(crate) const RESUMING: &str = "Resuming";
pub(crate) const QUEUES: &str = "Queues";
pub(crate) const STOPPING: &str = "Stopping";
pub(crate) const DEVELOPMENT: &str = "Development";
