//! `confab token`: a further token, made with the development key.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use time::{Duration, OffsetDateTime};

use crate::dev::key;

/// Print a token made with the development key of `confab dev`. Never for production: there, tokens come from your identity provider.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The user: the token's `sub`.
    #[arg(long, env = "CONFAB_TOKEN_SUB")]
    sub: String,
    /// Where `confab dev` keeps its data.
    #[arg(long, env = "CONFAB_DEV_DATA_DIR", default_value = ".confab/data")]
    data_dir: PathBuf,
    /// The product; without it, `default`.
    #[arg(long, env = "CONFAB_TOKEN_TENANT")]
    tenant: Option<String>,
    /// The device.
    #[arg(long, env = "CONFAB_TOKEN_DEVICE", default_value = "terminal")]
    device: String,
    /// The login that revocation is about.
    #[arg(long, env = "CONFAB_TOKEN_LOGIN", default_value = "development")]
    login: String,
    /// Scopes, space separated: confab:read, confab:write, confab:admin.
    #[arg(long, env = "CONFAB_TOKEN_SCOPE")]
    scope: Option<String>,
    /// Hours until it expires.
    #[arg(long, env = "CONFAB_TOKEN_HOURS", default_value_t = 720)]
    hours: u32,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let key = key::read(&args.data_dir).await.with_context(|| {
        format!(
            "no development key in {}: `confab dev` makes one",
            args.data_dir.display()
        )
    })?;
    let mut claims = key::claims(
        &args.sub,
        OffsetDateTime::now_utc(),
        Duration::hours(args.hours.into()),
    );
    claims.device_id = args.device;
    claims.session_id = args.login;
    claims.tenant = args.tenant;
    claims.scope = args.scope;
    writeln!(std::io::stdout().lock(), "{}", key.mint(&claims)?)?;
    Ok(())
}
