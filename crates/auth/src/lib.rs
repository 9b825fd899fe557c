//! Who is calling: JWT verification, key sets, claims, and minting development tokens.
//!
//! The way of a token: [`bearer`] takes it out of the Authorization header, [`Verifier::verify`] parses it (`token`),
//! finds its key (`keys`), checks the signature and then the claims (`claims`), and answers a [`Caller`] or an
//! [`AuthError`]. No network is waited for but when a token names an unknown key, and then for a bounded time.

mod algorithm;
mod bearer;
mod claims;
mod error;
mod json;
mod keys;
pub mod mint;
mod pem;
mod settings;
#[cfg(test)]
mod testing;
mod token;
mod verifier;

pub use algorithm::Algorithm;
pub use bearer::bearer;
pub use claims::{Caller, Scope};
pub use error::{AuthError, Defect, challenge};
pub use settings::{Settings, SettingsError};
pub use verifier::Verifier;
