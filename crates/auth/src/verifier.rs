//! From a token to who is calling.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::claims::Caller;
use crate::error::{AuthError, Defect};
use crate::explain::{self, Explanation};
use crate::issuers::{self, Files, Issuer};
use crate::settings::{Settings, SettingsError};
use crate::token::ParsedToken;

/// Verifies tokens by the settings and the keys of their issuers.
#[derive(Debug)]
pub struct Verifier {
    settings: Settings,
    /// At least one, as settings and files had them when these were last of use.
    issuers: watch::Sender<Arc<[Arc<Issuer>]>>,
    leeway: Duration,
}

impl Verifier {
    /// A verifier by `settings`. It reads files; a key set it only fetches once [`Self::run`] runs.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            settings: settings.clone(),
            issuers: watch::Sender::new(issuers::read(settings)?.into()),
            leeway: Duration::seconds(settings.leeway.into()),
        })
    }

    /// Fetches the key sets, again and again, and takes over what files of issuers and public keys say when that changes, until `stop`: a
    /// task of the caller's. While it does not run, a token with an unknown key waits in vain for the time that a fetch may take.
    pub async fn run(&self, stop: CancellationToken) {
        let work = async {
            let mut files = Files::default();
            loop {
                let issuers = self.issuers();
                let fetching = issuers.iter().map(|issuer| issuer.keys.run());
                tokio::select! {
                    _never = futures_util::future::join_all(fetching) => {}
                    replaced = files.replaced(&self.settings, &issuers) => {
                        self.issuers.send_replace(replaced);
                    }
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(work).await;
    }

    /// Fetches each key set once: for a look at a token, where [`Self::run`] does not run. Why one could not be fetched stands in the
    /// log.
    pub async fn fetch(&self) {
        issuers::fetch(&self.issuers()).await;
    }

    /// Returns true if there are keys to verify with: every key set was asked for once, and there are keys of some issuer. One that is away at
    /// a start keeps only its own tokens out, which are answered [`AuthError::Unavailable`].
    #[must_use]
    pub fn has_keys(&self) -> bool {
        let issuers = self.issuers.borrow();
        let is_asked = |issuer: &Arc<Issuer>| issuer.keys.were_asked_for();
        let has_keys = |issuer: &Arc<Issuer>| issuer.keys.current().is_ok();
        issuers.iter().all(is_asked) && issuers.iter().any(has_keys)
    }

    /// The issuers in force.
    pub(crate) fn issuers(&self) -> Arc<[Arc<Issuer>]> {
        Arc::clone(&self.issuers.borrow())
    }

    /// Returns how long after `exp` a token is still good.
    #[must_use]
    pub const fn leeway(&self) -> Duration {
        self.leeway
    }

    /// Returns who calls with `token` (as [`crate::bearer()`] gave it) at `now`. It waits only for a key set to be fetched again,
    /// when the token names a key that is not there; that is at most once per interval for all tokens of an issuer, and never longer
    /// than the fetch may take.
    ///
    /// # Errors
    /// Why the caller is refused.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let token = ParsedToken::parse(token)?;
        // Of several issuers the token says whose it is; nothing of that is believed but by that issuer's key.
        let issuers = self.issuers();
        let (issuer, claims) = match &*issuers {
            [only] => (&**only, None),
            several => {
                let claims = token.claims()?;
                (issuers::named(several, &claims)?, Some(claims))
            }
        };
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(Defect::Algorithm.into());
        }
        let key_id = token.key_id.as_deref();
        let key = issuer.keys.find(key_id, token.algorithm).await?;
        if !key.verifies(&token) {
            return Err(Defect::Signature.into());
        }
        let claims = match claims {
            Some(claims) => claims,
            None => token.claims()?,
        };
        issuer.rules.check(&claims, now)
    }

    /// Returns what each part of `token` is to the settings at `now`, all that is wrong with it and not just the first: for the eyes of who
    /// holds the token. Of the token it shows the claims that are used, and of others their names.
    #[must_use]
    pub fn explain(&self, token: &str, now: OffsetDateTime) -> Explanation {
        explain::explain(&self.issuers(), token, now)
    }
}

#[cfg(test)]
mod tests;
