//! The settings of token verification, and what is wrong with them: found at start, before a port is bound.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use url::{Host, Url};

use crate::algorithm::Algorithm;
use crate::claims::{Named, Rules};
use crate::keys::KeyRefused;

/// Whose tokens are accepted, and what they must say.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Tokens")]
pub struct Settings {
    /// URL of the issuer's key set (RFC 7517). Either this or a public key is required.
    #[arg(long = "jwt-jwks-url", env = "CONFAB_JWT_JWKS_URL", value_name = "URL")]
    pub jwks_url: Option<Url>,

    /// Public key that tokens are signed with: the path of a PEM file, or the PEM itself.
    #[arg(
        long = "jwt-public-key",
        env = "CONFAB_JWT_PUBLIC_KEY",
        value_name = "PATH|PEM",
        allow_hyphen_values = true
    )]
    pub public_key: Option<String>,

    /// Accepted issuers (`iss`), separated by commas.
    #[arg(
        long = "jwt-issuer",
        env = "CONFAB_JWT_ISSUER",
        value_delimiter = ',',
        value_name = "ISS"
    )]
    pub issuer: Vec<String>,

    /// Accept tokens of any issuer, as far as the keys are theirs.
    #[arg(long = "jwt-any-issuer", env = "CONFAB_JWT_ANY_ISSUER", value_parser = BoolishValueParser::new())]
    pub any_issuer: bool,

    /// Accepted audiences (`aud`), separated by commas.
    #[arg(
        long = "jwt-audience",
        env = "CONFAB_JWT_AUDIENCE",
        value_delimiter = ',',
        value_name = "AUD"
    )]
    pub audience: Vec<String>,

    /// Accept tokens for any audience: also those that were meant for other services.
    #[arg(long = "jwt-any-audience", env = "CONFAB_JWT_ANY_AUDIENCE", value_parser = BoolishValueParser::new())]
    pub any_audience: bool,

    /// Accepted signature algorithms, of `RS256`, `ES256`, `EdDSA`, separated by commas.
    #[arg(
        long = "jwt-algorithms",
        env = "CONFAB_JWT_ALGORITHMS",
        value_delimiter = ',',
        value_name = "ALG",
        default_value = "RS256,ES256"
    )]
    pub algorithms: Vec<Algorithm>,

    /// How far the issuer's clock may be from ours, in seconds.
    #[arg(
        long = "jwt-leeway",
        env = "CONFAB_JWT_LEEWAY",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(..=3600)
    )]
    pub leeway: u32,

    /// Name of the claim that holds the device.
    #[arg(
        long = "jwt-device-claim",
        env = "CONFAB_JWT_DEVICE_CLAIM",
        value_name = "NAME",
        default_value = "deviceId"
    )]
    pub device_claim: String,

    /// Accept tokens without a device: then all of a user's connections are one device.
    #[arg(long = "jwt-device-optional", env = "CONFAB_JWT_DEVICE_OPTIONAL", value_parser = BoolishValueParser::new())]
    pub device_optional: bool,

    /// Name of the claim that holds the login, which can be revoked.
    #[arg(
        long = "jwt-session-claim",
        env = "CONFAB_JWT_SESSION_CLAIM",
        value_name = "NAME",
        default_value = "sessionId"
    )]
    pub session_claim: String,

    /// Accept tokens without a login: then only users can be revoked.
    #[arg(long = "jwt-session-optional", env = "CONFAB_JWT_SESSION_OPTIONAL", value_parser = BoolishValueParser::new())]
    pub session_optional: bool,

    /// Name of the claim that holds the tenant; tokens without it belong to the tenant `default`.
    #[arg(
        long = "jwt-tenant-claim",
        env = "CONFAB_JWT_TENANT_CLAIM",
        value_name = "NAME",
        default_value = "tenant"
    )]
    pub tenant_claim: String,

    /// Refuse tokens without `nbf`.
    #[arg(long = "jwt-require-nbf", env = "CONFAB_JWT_REQUIRE_NBF", value_parser = BoolishValueParser::new())]
    pub require_nbf: bool,

    /// Longest life of a token, from `iat` to `exp`, in seconds. Longer ones are refused, since a revocation is kept for this long: workers
    /// keep it for the longest that any gateway says.
    #[arg(
        long = "token-max-lifetime",
        env = "CONFAB_TOKEN_MAX_LIFETIME",
        value_name = "SECONDS",
        default_value_t = 31_622_400,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_lifetime: u32,

    /// Shortest time between two fetches of the key set for unknown key ids, in seconds.
    #[arg(
        long = "jwt-jwks-interval",
        env = "CONFAB_JWT_JWKS_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub jwks_interval: u32,

    /// Time after which the key set is fetched again in any case, in seconds.
    #[arg(
        long = "jwt-jwks-max-age",
        env = "CONFAB_JWT_JWKS_MAX_AGE",
        value_name = "SECONDS",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub jwks_max_age: u32,

    /// Longest time that fetching the key set may take, in seconds.
    #[arg(
        long = "jwt-jwks-timeout",
        env = "CONFAB_JWT_JWKS_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=60)
    )]
    pub jwks_timeout: u32,

    /// Fetch the key set by plain http from other hosts than this one: who is on the way can then forge any token.
    #[arg(long = "jwt-jwks-insecure", env = "CONFAB_JWT_JWKS_INSECURE", value_parser = BoolishValueParser::new())]
    pub jwks_insecure: bool,
}

/// Settings that cannot be run with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither source of keys is set, or both are.
    #[error("set either --jwt-jwks-url or --jwt-public-key, and not both")]
    KeySource,
    /// The URL is not one that keys may be fetched from.
    #[error(
        "--jwt-jwks-url must be https (or http to this host, or with --jwt-jwks-insecure), without a user name"
    )]
    Url,
    /// The file of the public key cannot be read.
    #[error("--jwt-public-key is neither a PEM nor a file that can be read")]
    KeyFile(#[source] std::io::Error),
    /// The public key is not one that we verify with.
    #[error("--jwt-public-key cannot be used")]
    Key(#[source] KeyRefused),
    /// The public key is for an algorithm that is not allowed.
    #[error("--jwt-public-key is for {0}, which --jwt-algorithms does not name")]
    KeyAlgorithm(Algorithm),
    /// A list and its waiver are both set, or neither is.
    #[error("set either --jwt-{0} or --jwt-any-{0}, and not both")]
    Waiver(&'static str),
    /// An empty value, which no token could be meant to have.
    #[error("--jwt-{0} is empty")]
    Empty(&'static str),
    /// The HTTP client could not be made, most likely because the system has no certificates.
    #[error("cannot prepare to fetch --jwt-jwks-url")]
    Client(#[source] reqwest::Error),
}

/// Where keys come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Url(&'a Url),
    Key(&'a str),
}

impl Settings {
    /// The one source of keys.
    pub(crate) fn source(&self) -> Result<Source<'_>, SettingsError> {
        match (&self.jwks_url, &self.public_key) {
            (Some(url), None) => self.check_url(url).map(|()| Source::Url(url)),
            (None, Some(key)) => Ok(Source::Key(key)),
            _ => Err(SettingsError::KeySource),
        }
    }

    fn check_url(&self, url: &Url) -> Result<(), SettingsError> {
        let anonymous = url.username().is_empty() && url.password().is_none();
        match url.scheme() {
            "https" if anonymous => Ok(()),
            "http" if anonymous && (self.jwks_insecure || is_loopback(url)) => Ok(()),
            _ => Err(SettingsError::Url),
        }
    }

    /// What claims must be like.
    pub(crate) fn rules(&self) -> Result<Rules, SettingsError> {
        if self.algorithms.is_empty() {
            return Err(SettingsError::Empty("algorithms"));
        }
        Ok(Rules {
            issuers: listed("issuer", &self.issuer, self.any_issuer)?,
            audiences: listed("audience", &self.audience, self.any_audience)?,
            leeway: time::Duration::seconds(self.leeway.into()),
            max_lifetime: time::Duration::seconds(self.max_lifetime.into()),
            device: named("device-claim", &self.device_claim, self.device_optional)?,
            session: named("session-claim", &self.session_claim, self.session_optional)?,
            tenant: named("tenant-claim", &self.tenant_claim, true)?.name,
            not_before_required: self.require_nbf,
        })
    }

    /// The three times of fetching.
    pub(crate) fn pace(&self) -> Pace {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Pace {
            interval: seconds(self.jwks_interval),
            max_age: seconds(self.jwks_max_age),
            timeout: seconds(self.jwks_timeout),
        }
    }
}

/// When a key set is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The shortest time between two fetches for unknown key ids.
    pub(crate) interval: Duration,
    /// The time after which it is fetched in any case.
    pub(crate) max_age: Duration,
    /// The longest time that a fetch takes, and that anybody waits for one.
    pub(crate) timeout: Duration,
}

/// Whether the URL leads to this very host, whatever a resolver says.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn listed(
    name: &'static str,
    values: &[String],
    waived: bool,
) -> Result<Option<Vec<String>>, SettingsError> {
    if values.is_empty() != waived {
        return Err(SettingsError::Waiver(name));
    }
    if values.iter().any(String::is_empty) {
        return Err(SettingsError::Empty(name));
    }
    Ok((!waived).then(|| values.to_vec()))
}

fn named(setting: &'static str, name: &str, optional: bool) -> Result<Named, SettingsError> {
    if name.is_empty() {
        return Err(SettingsError::Empty(setting));
    }
    Ok(Named {
        name: name.to_owned(),
        optional,
    })
}

#[cfg(test)]
mod tests;
