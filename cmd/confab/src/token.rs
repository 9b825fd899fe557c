//! `confab token`: a further token, made with the development key, or a look at one from anywhere.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use confab_auth::Verifier;
use time::{Duration, OffsetDateTime};

use crate::dev::key;

/// Print a token made with the development key of `confab dev`, or explain a token against the settings of a gateway.
///
/// Made tokens are never for production: there, tokens come from your identity provider.
#[derive(Debug, clap::Args)]
#[command(after_help = USAGE_EXAMPLES, mut_args(of_gateway))]
pub(crate) struct TokenArgs {
    /// Required, unless --check is there: the user, the token's `sub`.
    #[arg(
        long,
        env = "CONFAB_TOKEN_SUB",
        value_name = "USER",
        required_unless_present = "check",
        help_heading = "Required"
    )]
    sub: Option<String>,
    /// The product; without it, `default`.
    #[arg(
        id = "made-tenant",
        long = "tenant",
        env = "CONFAB_TOKEN_TENANT",
        value_name = "TENANT",
        help_heading = MINT_HEADING
    )]
    tenant: Option<String>,
    /// The device.
    #[arg(
        long,
        env = "CONFAB_TOKEN_DEVICE",
        default_value = "terminal",
        help_heading = MINT_HEADING
    )]
    device: String,
    /// The login that revocation is about.
    #[arg(
        long,
        env = "CONFAB_TOKEN_LOGIN",
        default_value = "development",
        help_heading = MINT_HEADING
    )]
    login: String,
    /// Scopes, separated by spaces: confab:read, confab:write, confab:admin.
    #[arg(
        long,
        env = "CONFAB_TOKEN_SCOPE",
        value_name = "SCOPES",
        help_heading = MINT_HEADING
    )]
    scope: Option<String>,
    /// Time until it expires.
    #[arg(
        long,
        env = "CONFAB_TOKEN_HOURS",
        value_name = "HOURS",
        default_value_t = 720,
        help_heading = MINT_HEADING
    )]
    hours: u32,
    /// Where `confab dev` keeps its data.
    #[arg(
        long,
        env = "CONFAB_DEV_DATA_DIR",
        value_name = "PATH",
        default_value = ".confab/data",
        help_heading = MINT_HEADING
    )]
    data_dir: PathBuf,
    /// Explain the token in this file (`-`: standard input), instead of making one.
    ///
    /// Against the settings of tokens below, which are those of a gateway; without any, against those of `confab dev`. Says what each
    /// claim gives, what is wrong, and which setting would mend it. Ends with 1 where the token is refused. Never shows the token.
    #[arg(long, value_name = "PATH|-", help_heading = EXPLAIN_HEADING)]
    check: Option<PathBuf>,
    #[command(flatten)]
    auth: confab_auth::Settings,
}

const MINT_HEADING: &str = "Making a token";
const EXPLAIN_HEADING: &str = "Explaining a token";

const USAGE_EXAMPLES: &str = "\
Examples:
  confab token --sub carol
  confab token --sub backend --scope confab:admin
  confab token --check - --jwt-issuers issuers.toml < token.txt";

/// What a gateway requires is for explaining alone here.
fn of_gateway(flag: clap::Arg) -> clap::Arg {
    let is_required = flag.get_help_heading() == Some("Required");
    if is_required && flag.get_id() != "sub" {
        flag.help_heading(EXPLAIN_HEADING)
    } else {
        flag
    }
}

/// The most that is read of what should be a token, in bytes: more than any token that is taken.
const MAX_READ_BYTES: u64 = 64 * 1024;

pub(crate) async fn run(args: TokenArgs) -> anyhow::Result<()> {
    if args.check.is_some() {
        return check(args).await;
    }
    let key = key::read(&args.data_dir).await.with_context(|| {
        format!(
            "no development key in {}: `confab dev` makes one; name its data with --data-dir",
            args.data_dir.display()
        )
    })?;
    let mut claims = key::claims(
        &args.sub.unwrap_or_default(),
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

async fn check(args: TokenArgs) -> anyhow::Result<()> {
    let settings = if args.auth.name_keys() {
        args.auth
    } else {
        let public = key::public(&args.data_dir);
        if !public.exists() {
            bail!(
                "set what the gateway has (CONFAB_JWT_… or --jwt-…), or run `confab dev`, whose settings are taken without any: there \
                 is no development key in {}",
                args.data_dir.display()
            );
        }
        let public = public.display().to_string();
        args.auth
            .of_development(public, key::TOKEN_ISSUER, key::TOKEN_AUDIENCE)
    };
    let text = read(&args.check.unwrap_or_default())?;
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let verifier = Verifier::new(&settings)?;
    verifier.fetch().await;
    let now = OffsetDateTime::now_utc();
    // The verdict is the gateway's own, but that nobody waits for key sets to be fetched again.
    let at_once = std::time::Duration::ZERO;
    let verdict = tokio::time::timeout(at_once, verifier.verify(token, now)).await;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", verifier.explain(token, now))?;
    match verdict {
        Ok(Ok(caller)) => {
            let (user, tenant) = (&caller.user, &caller.tenant);
            writeln!(out, "accepted: the user {user} of the tenant {tenant}")?;
            Ok(())
        }
        Ok(Err(error)) => bail!("the token is refused: {}: {error}", error.code()),
        Err(_waits) => bail!("the token is refused: its key is not in the issuer's key set"),
    }
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_READ_BYTES)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_READ_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read a token from {}", path.display()))?;
    Ok(text)
}
