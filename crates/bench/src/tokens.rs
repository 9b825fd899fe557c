//! Who the load is.

use std::path::Path;

use confab_auth::mint::{Claims, Key};
use time::{Duration, OffsetDateTime};

use crate::Error;

const TOKEN_LIFETIME: Duration = Duration::days(1);

/// A key whose tokens the measured gateways take.
#[derive(Debug)]
pub(crate) struct Tokens {
    key: Key,
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

impl Tokens {
    /// With a new key.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            key: Key::generate()?,
            issuer: "confab-bench".to_owned(),
            audience: "confab".to_owned(),
        })
    }

    /// With the private key, in PEM, of a file.
    pub(crate) fn read(path: &Path, issuer: &str, audience: &str) -> Result<Self, Error> {
        let pem = std::fs::read_to_string(path);
        let pem = pem.map_err(Error::io(format!("read {}", path.display())))?;
        Ok(Self {
            key: Key::from_private_pem(&pem)?,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })
    }

    pub(crate) fn public_pem(&self) -> Result<String, Error> {
        Ok(self.key.public_pem()?)
    }

    /// A token of a user.
    pub(crate) fn mint(&self, user: &str) -> Result<String, Error> {
        let mut claims = Claims::new(user, OffsetDateTime::now_utc(), TOKEN_LIFETIME);
        claims.issuer = Some(self.issuer.clone());
        claims.audience = Some(self.audience.clone());
        Ok(self.key.mint(&claims)?)
    }
}
