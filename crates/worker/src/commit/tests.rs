//! Commits against a real Postgres.

mod admins;
mod alone;
mod batches;
mod budgets;
mod content;
mod contention;
mod conversations;
mod creations;
mod dropped;
mod locks;
mod marks;
mod memberships;
mod messages;
mod nowhere;
mod outages;
mod plan;
mod races;
mod repeats;
mod revocations;
mod roles;
mod settled;
