//! The development key: made at the first start, kept in the data folder, never good for anything else.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use confab_auth::mint::{Claims, Key};
use time::{Duration, OffsetDateTime};

pub(crate) const TOKEN_ISSUER: &str = "confab-dev";
pub(crate) const TOKEN_AUDIENCE: &str = "confab";

fn private(data: &Path) -> PathBuf {
    data.join("development-key.pem")
}

/// Where the public key stands, for gateways.
pub(crate) fn public(data: &Path) -> PathBuf {
    data.join("development-key.pub.pem")
}

/// The key in the data folder.
pub(crate) async fn read(data: &Path) -> anyhow::Result<Key> {
    let path = private(data);
    let pem = tokio::fs::read_to_string(&path)
        .await
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Key::from_private_pem(&pem)?)
}

/// The key in the data folder, made where there is none.
pub(super) async fn read_or_make(data: &Path) -> anyhow::Result<Key> {
    if !private(data).exists() {
        let key = Key::generate()?;
        super::tell::write_private(&private(data), key.private_pem()?.as_bytes()).await?;
    }
    let key = read(data).await?;
    tokio::fs::write(public(data), key.public_pem()?).await?;
    Ok(key)
}

/// The claims of a development token.
pub(crate) fn claims(user: &str, now: OffsetDateTime, lifetime: Duration) -> Claims {
    let mut claims = Claims::new(user, now, lifetime);
    claims.issuer = Some(TOKEN_ISSUER.to_owned());
    claims.audience = Some(TOKEN_AUDIENCE.to_owned());
    claims
}
