//! Test support: a cluster per test, users at its gateways, and the oracle.

mod call;
mod cluster;
mod folder;
mod jwks;
mod member;
mod metric;
mod oracle;
mod postgres;
mod raw;
mod record;
mod role;
mod stream;
mod tokens;
mod traffic;
mod wait;
mod witness;

pub(crate) use call::{Answer, id_of};
pub(crate) use cluster::{Cluster, Setup};
pub(crate) use folder::Folder;
pub(crate) use jwks::Jwks;
pub(crate) use member::{Member, User, text};
pub(crate) use metric::sample;
pub(crate) use oracle::{
    Owed, assert_hears_only, assert_log, assert_memberships, assert_stored, membership, memberships,
};
pub(crate) use postgres::{Database, Failover, programs};
pub(crate) use raw::{BINARY_BYTE, CLOSE_BYTE, Ended, Raw, TEXT_BYTE, frame, frame_head};
pub(crate) use role::DatabaseRole;
pub(crate) use stream::RefusingStream;
pub(crate) use tokens::{Key, TOKEN_AUDIENCE, TOKEN_ISSUER, claims, hs256, jwks, unsigned};
pub(crate) use traffic::{AckedMessage, Traffic};
pub(crate) use wait::{eventually, is_soak, soak};
pub(crate) use witness::{Readers, Witness};
