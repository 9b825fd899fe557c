//! Checks of the settings of tokens and of each issuer's key set.

use confab_protocol::check::Check;

use crate::issuers;
use crate::settings::Settings;

/// Checks the settings of tokens, and fetches each issuer's key set once, within two seconds.
pub async fn check_keys(settings: &Settings) -> Vec<Check> {
    let issuers = match issuers::read(settings) {
        Ok(issuers) => issuers,
        Err(error) => {
            let found = "the settings of tokens cannot be used";
            let remedy = "correct them: docs/operations/tokens.md has all, docs/operations/identity-providers.md those of common providers";
            return vec![
                Check::fail("keys.settings", "CONFAB_JWT_…", found, remedy).because(&error),
            ];
        }
    };
    let checking = issuers
        .iter()
        .map(|issuer| issuer.keys.check(&issuer.algorithms));
    let checked = futures_util::future::join_all(checking).await;
    checked.into_iter().flatten().collect()
}
