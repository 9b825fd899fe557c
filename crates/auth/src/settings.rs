//! The settings of token verification: found wrong at start, before a port is bound.

use std::path::PathBuf;
use std::time::Duration;

use crate::Algorithm;
use crate::keys::KeyRefused;

mod issuer;

pub(crate) use issuer::{IssuerSettings, Source, is_loopback, is_pem};

/// The headings of the flags in `--help`.
mod headings {
    pub(super) const REQUIRED_HEADING: &str = "Required";
    pub(super) const ISSUERS_HEADING: &str = "Tokens (issuers and applications)";
    pub(super) const USERS_HEADING: &str = "Tokens (users, devices, logins)";
    pub(super) const TENANTS_HEADING: &str = "Tokens (tenants)";
    pub(super) const SCOPES_HEADING: &str = "Tokens (scopes)";
    pub(super) const KEYS_HEADING: &str = "Tokens (key sets and times)";
}

/// Whose tokens are accepted, and what they must say.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Settings {
    /// The one issuer of the flags.
    #[command(flatten)]
    pub(crate) flags: IssuerSettings,

    /// TOML file with further issuers, an `[[issuer]]` each: see docs/operations/tokens.md.
    ///
    /// Its settings are the flags `--jwt-…` without `--jwt-`. Where no other `--jwt-…` flag is set, the issuers of the file are all there are.
    #[arg(long = "jwt-issuers", env = "CONFAB_JWT_ISSUERS", value_name = "PATH", help_heading = headings::ISSUERS_HEADING)]
    pub issuers: Option<PathBuf>,

    /// How far an issuer's clock may be from ours.
    #[arg(
        long = "jwt-leeway",
        env = "CONFAB_JWT_LEEWAY",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(..=3600),
        help_heading = headings::KEYS_HEADING
    )]
    pub leeway: u32,

    /// Longest life of a token, from `iat` to `exp`.
    ///
    /// Longer ones are refused, since a revocation is kept for this long: workers keep it for the longest that any gateway says.
    #[arg(
        long = "token-max-lifetime",
        env = "CONFAB_TOKEN_MAX_LIFETIME",
        value_name = "SECONDS",
        default_value_t = 31_622_400,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::KEYS_HEADING
    )]
    pub max_lifetime: u32,

    /// Shortest time between two fetches of a key set for unknown key ids.
    #[arg(
        long = "jwt-jwks-interval",
        env = "CONFAB_JWT_JWKS_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::KEYS_HEADING
    )]
    pub jwks_interval: u32,

    /// Time after which a key set is fetched again in any case.
    #[arg(
        long = "jwt-jwks-max-age",
        env = "CONFAB_JWT_JWKS_MAX_AGE",
        value_name = "SECONDS",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::KEYS_HEADING
    )]
    pub jwks_max_age: u32,

    /// Longest time that fetching a key set may take.
    #[arg(
        long = "jwt-jwks-timeout",
        env = "CONFAB_JWT_JWKS_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=60),
        help_heading = headings::KEYS_HEADING
    )]
    pub jwks_timeout: u32,
}

/// Settings that cannot be run with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// What is wrong with the settings of one issuer.
    #[error("{issuer}")]
    Issuer {
        /// Which.
        issuer: String,
        /// What is wrong.
        #[source]
        error: IssuerError,
    },
    /// The file of issuers cannot be read.
    #[error("cannot read {}, the file of --jwt-issuers", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The file of issuers is not what it should be.
    #[error("{}, the file of --jwt-issuers, is not a list of [[issuer]] with known settings", .0.display())]
    Toml(PathBuf, #[source] Box<toml::de::Error>),
    /// The file lists none.
    #[error("{}, the file of --jwt-issuers, has no [[issuer]]", .0.display())]
    NoIssuer(PathBuf),
    /// Two entries for one issuer: which one counts would be a guess.
    #[error("{one} and {two} both have the issuer {issuer:?}")]
    SameIssuer {
        /// The first.
        one: String,
        /// The second.
        two: String,
        /// The issuer of both.
        issuer: String,
    },
    /// One issuer could make tokens of another's users.
    #[error(
        "{one} and {two} may both speak for the tenant {tenant:?}: give them tenants of their own, or set share-tenants in both"
    )]
    SharedTenant {
        /// The first.
        one: String,
        /// The second.
        two: String,
        /// A tenant that is both's, or how the names of those begin.
        tenant: String,
    },
}

/// What is wrong with the settings of one issuer. A setting is a flag with `--jwt-` before it, or a key in the file of issuers.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Neither source of keys is set, or both are.
    #[error("set either jwks-url or public-key, and not both")]
    KeySource,
    /// The URL is not one that keys may be fetched from.
    #[error(
        "jwks-url must be https (or http to this host, or with jwks-insecure), without a user name"
    )]
    Url,
    /// The file of the public key cannot be read.
    #[error("public-key is neither a PEM nor a file that can be read")]
    KeyFile(#[source] std::io::Error),
    /// The public key is not one that we verify with.
    #[error("public-key cannot be used")]
    Key(#[source] KeyRefused),
    /// The public key is for an algorithm that is not allowed.
    #[error("public-key is for {0}, which algorithms does not name")]
    KeyAlgorithm(Algorithm),
    /// A list and its waiver are both set, or neither is.
    #[error("set either {0} or any-{0}, and not both")]
    Waiver(&'static str),
    /// Tokens are told apart by their issuer, so each entry must name its own.
    #[error("any-issuer is for an installation of one issuer")]
    AnyIssuerOfSeveral,
    /// An empty value, which no token could be meant to have.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A setting without the other one that gives it a meaning.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
    /// Two settings that contradict each other.
    #[error("{0} and {1} exclude each other")]
    Excludes(&'static str, &'static str),
    /// It is not said which tenants the issuer may speak for.
    #[error(
        "set tenant (one for all its tokens), or tenants or tenant-prefix (for what tenant-claim may say; a prefix of \"\" is all)"
    )]
    NoTenants,
    /// Tokens without a tenant would belong to one that the issuer may not speak for.
    #[error(
        "tenant-optional needs the tenant \"default\" among those that the issuer may speak for"
    )]
    OptionalTenant,
    /// The HTTP client could not be made, most likely because the system has no certificates.
    #[error("cannot prepare to fetch jwks-url")]
    Client(#[source] reqwest::Error),
}

impl Settings {
    /// Returns true if they name any key to verify with.
    #[must_use]
    pub fn name_keys(&self) -> bool {
        self.issuers.is_some() || self.flags.jwks_url.is_some() || self.flags.public_key.is_some()
    }

    /// Returns true if something of issuers and keys stands in files, which may change.
    pub(crate) fn name_files(&self) -> bool {
        let key = self.flags.public_key.as_deref();
        self.issuers.is_some() || key.is_some_and(|text| !is_pem(text))
    }

    /// The same, with the tokens of one issuer by a public key beside them: of `confab dev`, in whose installation there is one tenant
    /// unless tokens name another, and whose tokens may be granted everything.
    #[must_use]
    pub fn of_development(&self, public_key: String, issuer: &str, audience: &str) -> Self {
        Self {
            flags: IssuerSettings::of_development(public_key, issuer, audience),
            ..self.clone()
        }
    }

    /// The three times of fetching.
    pub(crate) fn pace(&self) -> FetchPace {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        FetchPace {
            interval: seconds(self.jwks_interval),
            max_age: seconds(self.jwks_max_age),
            timeout: seconds(self.jwks_timeout),
        }
    }
}

/// When a key set is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchPace {
    /// The shortest time between two fetches for unknown key ids.
    pub(crate) interval: Duration,
    /// The time after which it is fetched in any case.
    pub(crate) max_age: Duration,
    /// The longest time that a fetch takes, and that anybody waits for one.
    pub(crate) timeout: Duration,
}

#[cfg(test)]
mod tests;
