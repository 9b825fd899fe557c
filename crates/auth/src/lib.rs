//! Who is calling: JWT verification, key sets, claims, and minting development tokens.
//!
//! The way of a token: [`bearer()`] takes it out of the Authorization header, [`Verifier::verify`] parses it (`token`),
//! finds the issuer that it names (`issuers`) and that one's key (`keys`), checks the signature and then the claims (`claims`, with
//! `tenants` and `scope`), and answers a [`Caller`] or an [`AuthError`]. No network is waited for but when a token names an unknown
//! key, and then for a bounded time.

mod algorithm;
mod bearer;
mod check;
mod claim_path;
mod claims;
mod error;
mod explain;
mod issuers;
mod json;
mod keys;
pub mod mint;
mod pem;
mod scope;
mod settings;
mod tenants;
#[cfg(test)]
mod testing;
mod token;
mod verifier;

pub use algorithm::Algorithm;
pub use bearer::bearer;
pub use check::check_keys;
pub use claim_path::{BadClaimPath, ClaimPath};
pub use claims::Caller;
pub use error::{AuthError, Defect, Part, challenge};
pub use explain::{Explanation, Finding, Outline, outline};
pub use scope::{Right, Scope, UnknownRight};
pub use settings::{IssuerError, Settings, SettingsError};
pub use verifier::Verifier;

/// The conditions that the log tells of.
pub const AUTH_CONDITIONS: &[confab_protocol::condition::Condition] = &[keys::KEY_SET];
