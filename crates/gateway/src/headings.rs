//! The headings of the flags in `--help`.

pub(crate) const CLIENTS_HEADING: &str = "Clients";
pub(crate) const LIMITS_HEADING: &str = "Limits of clients";
pub(crate) const TIMES_HEADING: &str = "Times";
pub(crate) const RESUMING_HEADING: &str = "Resuming";
pub(crate) const QUEUES_HEADING: &str = "Queues";
pub(crate) const STOPPING_HEADING: &str = "Stopping";
pub(crate) const DEVELOPMENT_HEADING: &str = "Development";
