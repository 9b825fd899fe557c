//! Commits against a real Postgres.

mod batches;
mod creations;
mod marks;
mod memberships;
mod plan;
mod revocations;
