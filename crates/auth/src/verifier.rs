//! From a token to who is calling.

use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::algorithm::Algorithm;
use crate::claims::{Caller, Rules};
use crate::error::{AuthError, Defect};
use crate::keys::Keys;
use crate::settings::{Settings, SettingsError};
use crate::token::Token;

/// Verifies tokens by the settings and the keys of the issuer.
#[derive(Debug)]
pub struct Verifier {
    algorithms: Vec<Algorithm>,
    keys: Keys,
    rules: Rules,
}

impl Verifier {
    /// A verifier by `settings`. It reads the public key; a key set it only fetches once [`Self::run`] runs.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let keys = Keys::new(settings)?;
        Ok(Self {
            algorithms: settings.algorithms.clone(),
            keys,
            rules: settings.rules()?,
        })
    }

    /// Fetches the key set, again and again, until `stop`: a task of the caller's. While it does not run, a token with an
    /// unknown key waits in vain for the time that a fetch may take.
    pub async fn run(&self, stop: CancellationToken) {
        self.keys.run(&stop).await;
    }

    /// Whether there are keys to verify with: until then every token is answered [`AuthError::Unavailable`].
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys.current().is_ok()
    }

    /// How long after `exp` a token is still good.
    #[must_use]
    pub const fn leeway(&self) -> Duration {
        self.rules.leeway
    }

    /// Who calls with `token` (as [`crate::bearer`] gave it) at `now`. It waits only for the key set to be fetched again,
    /// when the token names a key that is not there; that is at most once per interval for all tokens, and never longer than the
    /// fetch may take.
    ///
    /// # Errors
    /// Why the caller is refused.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let token = Token::parse(token)?;
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Defect::Algorithm.into());
        }
        let key = self
            .keys
            .find(token.key_id.as_deref(), token.algorithm)
            .await?;
        if !key.verifies(&token) {
            return Err(Defect::Signature.into());
        }
        self.rules.check(&token.claims()?, now)
    }
}

#[cfg(test)]
mod tests;
