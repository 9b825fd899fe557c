//! The settings of one issuer: flags, or an entry of a file, under the same names.

use std::fmt::Display;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use confab_protocol::ids::TenantId;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use time::Duration;
use url::{Host, Url};

use super::{IssuerError, Settings, headings};
use crate::Algorithm;
use crate::claim_path::ClaimPath;
use crate::claims::{ClientRule, Named, Rules};
use crate::scope::{DEFAULT_PREFIX, Right, Scope, ScopeRule};
use crate::tenants::{DEFAULT_TENANT, TenantRule, Tenants};

/// Whose tokens are accepted, and what they must say: a claim that a setting names is required, unless it is declared optional. A
/// claim is given by its name or, with a slash in front, by a JSON pointer (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[group(skip)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct IssuerSettings {
    /// Required, or --jwt-public-key: the URL of the issuer's key set (RFC 7517).
    ///
    /// Neither is needed where --jwt-issuers names a file of issuers.
    #[arg(long = "jwt-jwks-url", env = "CONFAB_JWT_JWKS_URL", value_name = "URL", help_heading = headings::REQUIRED_HEADING)]
    #[serde(deserialize_with = "one")]
    pub(crate) jwks_url: Option<Url>,

    /// Required, or --jwt-jwks-url: the key that tokens are signed with, as a PEM or the path of one.
    ///
    /// A file is read again when it changes.
    #[arg(
        long = "jwt-public-key",
        env = "CONFAB_JWT_PUBLIC_KEY",
        value_name = "PATH|PEM",
        allow_hyphen_values = true,
        help_heading = headings::REQUIRED_HEADING
    )]
    pub(crate) public_key: Option<String>,

    /// Required: accepted issuers (`iss`), separated by commas.
    ///
    /// Tokens of any are accepted with --jwt-any-issuer.
    #[arg(
        long = "jwt-issuer",
        env = "CONFAB_JWT_ISSUER",
        value_delimiter = ',',
        value_name = "ISS",
        help_heading = headings::REQUIRED_HEADING
    )]
    #[serde(deserialize_with = "several")]
    pub(crate) issuer: Vec<String>,

    /// Accept tokens of any issuer, as far as the keys are theirs.
    #[arg(long = "jwt-any-issuer", env = "CONFAB_JWT_ANY_ISSUER", value_parser = BoolishValueParser::new(), help_heading = headings::ISSUERS_HEADING)]
    pub(crate) any_issuer: bool,

    /// Required: accepted audiences (`aud`), separated by commas.
    ///
    /// Tokens for any are accepted with --jwt-any-audience.
    #[arg(
        long = "jwt-audience",
        env = "CONFAB_JWT_AUDIENCE",
        value_delimiter = ',',
        value_name = "AUD",
        help_heading = headings::REQUIRED_HEADING
    )]
    #[serde(deserialize_with = "several")]
    pub(crate) audience: Vec<String>,

    /// Accept tokens for any audience: also those that were meant for other services.
    ///
    /// With --jwt-client-claim only those of known applications.
    #[arg(long = "jwt-any-audience", env = "CONFAB_JWT_ANY_AUDIENCE", value_parser = BoolishValueParser::new(), help_heading = headings::ISSUERS_HEADING)]
    pub(crate) any_audience: bool,

    /// Claim with the application that a token was made for, such as `azp`, `client_id` or `cid`.
    #[arg(
        long = "jwt-client-claim",
        env = "CONFAB_JWT_CLIENT_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::ISSUERS_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) client_claim: Option<ClaimPath>,

    /// Accepted applications, separated by commas: what --jwt-client-claim may say.
    #[arg(
        long = "jwt-clients",
        env = "CONFAB_JWT_CLIENTS",
        value_delimiter = ',',
        value_name = "CLIENT",
        help_heading = headings::ISSUERS_HEADING
    )]
    #[serde(deserialize_with = "several")]
    pub(crate) clients: Vec<String>,

    /// Accepted signature algorithms, of `RS256`, `ES256`, `EdDSA`, separated by commas.
    #[arg(
        long = "jwt-algorithms",
        env = "CONFAB_JWT_ALGORITHMS",
        value_delimiter = ',',
        value_name = "ALG",
        default_value = "RS256,ES256",
        help_heading = headings::ISSUERS_HEADING
    )]
    #[serde(default = "default_algorithms", deserialize_with = "several")]
    pub(crate) algorithms: Vec<Algorithm>,

    /// Claim with the user; without this, `sub`.
    #[arg(
        long = "jwt-user-claim",
        env = "CONFAB_JWT_USER_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::USERS_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) user_claim: Option<ClaimPath>,

    /// Claim with the device; without this, `deviceId` where it is there.
    ///
    /// Tokens without a device: all of a user's connections are one device.
    #[arg(
        long = "jwt-device-claim",
        env = "CONFAB_JWT_DEVICE_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::USERS_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) device_claim: Option<ClaimPath>,

    /// Accept tokens without the claim of --jwt-device-claim.
    #[arg(long = "jwt-device-optional", env = "CONFAB_JWT_DEVICE_OPTIONAL", value_parser = BoolishValueParser::new(), help_heading = headings::USERS_HEADING)]
    pub(crate) device_optional: bool,

    /// Claim with the login; without this, `sessionId` where it is there.
    ///
    /// A login can be revoked. Of tokens without one, only the user can be revoked.
    #[arg(
        long = "jwt-session-claim",
        env = "CONFAB_JWT_SESSION_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::USERS_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) session_claim: Option<ClaimPath>,

    /// Accept tokens without the claim of --jwt-session-claim.
    #[arg(long = "jwt-session-optional", env = "CONFAB_JWT_SESSION_OPTIONAL", value_parser = BoolishValueParser::new(), help_heading = headings::USERS_HEADING)]
    pub(crate) session_optional: bool,

    /// The tenant of all tokens, which name none.
    #[arg(long = "jwt-tenant", env = "CONFAB_JWT_TENANT", value_name = "TENANT", help_heading = headings::TENANTS_HEADING)]
    #[serde(deserialize_with = "one")]
    pub(crate) tenant: Option<TenantId>,

    /// All tokens belong to the tenant `default`: the installation serves one product.
    #[arg(long = "single-tenant", env = "CONFAB_SINGLE_TENANT", value_parser = BoolishValueParser::new(), help_heading = headings::TENANTS_HEADING)]
    #[serde(skip)]
    pub(crate) single_tenant: bool,

    /// Claim with the tenant; without this, `tenant`.
    ///
    /// Required in tokens, unless --single-tenant, --jwt-tenant or --jwt-tenant-optional is set.
    #[arg(
        long = "jwt-tenant-claim",
        env = "CONFAB_JWT_TENANT_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::TENANTS_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) tenant_claim: Option<ClaimPath>,

    /// Accept tokens without the tenant claim: they belong to the tenant `default`.
    #[arg(long = "jwt-tenant-optional", env = "CONFAB_JWT_TENANT_OPTIONAL", value_parser = BoolishValueParser::new(), help_heading = headings::TENANTS_HEADING)]
    pub(crate) tenant_optional: bool,

    /// Tenants that the issuer may speak for, separated by commas.
    ///
    /// Without this and --jwt-tenant-prefix, all.
    #[arg(
        long = "jwt-tenants",
        env = "CONFAB_JWT_TENANTS",
        value_delimiter = ',',
        value_name = "TENANT",
        help_heading = headings::TENANTS_HEADING
    )]
    #[serde(deserialize_with = "several")]
    pub(crate) tenants: Vec<TenantId>,

    /// How the names of the tenants begin that the issuer may speak for.
    #[arg(
        long = "jwt-tenant-prefix",
        env = "CONFAB_JWT_TENANT_PREFIX",
        value_name = "PREFIX",
        help_heading = headings::TENANTS_HEADING
    )]
    pub(crate) tenant_prefix: Option<String>,

    /// Another issuer, which says so too, may speak for the same tenants.
    ///
    /// A user of one is then the user of the same name of the other.
    #[arg(long = "jwt-share-tenants", env = "CONFAB_JWT_SHARE_TENANTS", value_parser = BoolishValueParser::new(), help_heading = headings::TENANTS_HEADING)]
    pub(crate) share_tenants: bool,

    /// Claim with scopes, a text with spaces or a list: a token may do only what it names.
    ///
    /// Without this the claims `scope`, `scp`, `roles` and `permissions` are read, and a token that has no scope of ours there may read
    /// and write.
    #[arg(
        long = "jwt-scope-claim",
        env = "CONFAB_JWT_SCOPE_CLAIM",
        value_name = "CLAIM",
        help_heading = headings::SCOPES_HEADING
    )]
    #[serde(deserialize_with = "one")]
    pub(crate) scope_claim: Option<ClaimPath>,

    /// Accept tokens without the claim of --jwt-scope-claim: they may read and write.
    #[arg(long = "jwt-scope-optional", env = "CONFAB_JWT_SCOPE_OPTIONAL", value_parser = BoolishValueParser::new(), help_heading = headings::SCOPES_HEADING)]
    pub(crate) scope_optional: bool,

    /// What stands before `read`, `write` and `admin` in a scope of ours; without this, `confab:`.
    #[arg(
        long = "jwt-scope-prefix",
        env = "CONFAB_JWT_SCOPE_PREFIX",
        value_name = "PREFIX",
        help_heading = headings::SCOPES_HEADING
    )]
    pub(crate) scope_prefix: Option<String>,

    /// What tokens may be granted, of `read`, `write`, `admin`; without this, `read,write`.
    ///
    /// Separated by commas. A token that names more is refused.
    #[arg(
        long = "jwt-grants",
        env = "CONFAB_JWT_GRANTS",
        value_delimiter = ',',
        value_name = "SCOPE",
        help_heading = headings::SCOPES_HEADING
    )]
    #[serde(deserialize_with = "several")]
    pub(crate) grants: Vec<Right>,

    /// Refuse tokens without `nbf`.
    #[arg(long = "jwt-require-nbf", env = "CONFAB_JWT_REQUIRE_NBF", value_parser = BoolishValueParser::new(), help_heading = headings::ISSUERS_HEADING)]
    pub(crate) require_nbf: bool,

    /// Fetch the key set by plain http from other hosts than this one.
    ///
    /// Who is on the way can then forge any token.
    #[arg(long = "jwt-jwks-insecure", env = "CONFAB_JWT_JWKS_INSECURE", value_parser = BoolishValueParser::new(), help_heading = headings::KEYS_HEADING)]
    pub(crate) jwks_insecure: bool,
}

/// The source of an issuer's keys.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Url(&'a Url),
    Key(&'a str),
}

/// Returns true if a public key is given as such, and not as the path of its file.
pub(crate) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN")
}

impl IssuerSettings {
    /// Returns true if no flag was given.
    pub(crate) fn is_unset(&self) -> bool {
        *self
            == Self {
                algorithms: default_algorithms(),
                ..Self::default()
            }
    }

    pub(super) fn of_development(public_key: String, issuer: &str, audience: &str) -> Self {
        Self {
            public_key: Some(public_key),
            issuer: vec![issuer.to_owned()],
            audience: vec![audience.to_owned()],
            algorithms: default_algorithms(),
            tenant_optional: true,
            grants: vec![Right::Read, Right::Write, Right::Admin],
            ..Self::default()
        }
    }

    /// The one source of keys.
    pub(crate) fn source(&self) -> Result<Source<'_>, IssuerError> {
        match (&self.jwks_url, &self.public_key) {
            (Some(url), None) => self.check_url(url).map(|()| Source::Url(url)),
            (None, Some(key)) => Ok(Source::Key(key)),
            _ => Err(IssuerError::KeySource),
        }
    }

    fn check_url(&self, url: &Url) -> Result<(), IssuerError> {
        let anonymous = url.username().is_empty() && url.password().is_none();
        match url.scheme() {
            "https" if anonymous => Ok(()),
            "http" if anonymous && (self.jwks_insecure || is_loopback(url)) => Ok(()),
            _ => Err(IssuerError::Url),
        }
    }

    /// Returns what the claims of this issuer's tokens must be like; `common` has what is the same for all issuers.
    pub(crate) fn rules(&self, common: &Settings) -> Result<Rules, IssuerError> {
        if self.algorithms.is_empty() {
            return Err(IssuerError::Empty("algorithms"));
        }
        let named = |claim: &Option<ClaimPath>, optional, usual: &str| match claim {
            Some(path) => Named {
                path: path.clone(),
                optional,
            },
            None => Named {
                path: ClaimPath::named(usual),
                optional: true,
            },
        };
        Ok(Rules {
            issuers: listed("issuer", &self.issuer, self.any_issuer)?,
            audiences: listed("audience", &self.audience, self.any_audience)?,
            client: self.client()?,
            leeway: Duration::seconds(common.leeway.into()),
            max_lifetime: Duration::seconds(common.max_lifetime.into()),
            user: self
                .user_claim
                .clone()
                .unwrap_or_else(|| ClaimPath::named("sub")),
            device: named(&self.device_claim, self.device_optional, "deviceId"),
            session: named(&self.session_claim, self.session_optional, "sessionId"),
            tenant: self.tenant_rule()?,
            scope: self.scope_rule()?,
            not_before_required: self.require_nbf,
        })
    }

    fn client(&self) -> Result<Option<ClientRule>, IssuerError> {
        if self.clients.iter().any(String::is_empty) {
            return Err(IssuerError::Empty("clients"));
        }
        match (&self.client_claim, self.clients.is_empty()) {
            (None, true) => Ok(None),
            (Some(path), false) => Ok(Some(ClientRule {
                path: path.clone(),
                allowed: self.clients.clone(),
            })),
            (Some(_), true) => Err(IssuerError::Needs("client-claim", "clients")),
            (None, false) => Err(IssuerError::Needs("clients", "client-claim")),
        }
    }

    fn tenant_rule(&self) -> Result<TenantRule, IssuerError> {
        let single = match self.single_tenant {
            true => DEFAULT_TENANT.parse().ok(),
            false => None,
        };
        if single.is_some() && self.tenant.is_some() {
            return Err(IssuerError::Excludes("single-tenant", "tenant"));
        }
        if let Some(tenant) = single.or_else(|| self.tenant.clone()) {
            let is_claimed = self.tenant_claim.is_some() || self.tenant_optional;
            if is_claimed || !self.tenants.is_empty() || self.tenant_prefix.is_some() {
                return Err(IssuerError::Excludes(
                    "single-tenant or tenant",
                    "any other setting of tenants",
                ));
            }
            return Ok(TenantRule {
                claim: None,
                allowed: Tenants::Listed(vec![tenant]),
            });
        }
        let allowed = match (&self.tenant_prefix, self.tenants.is_empty()) {
            (Some(prefix), true) => Tenants::Prefixed(prefix.clone()),
            (None, false) => Tenants::Listed(self.tenants.clone()),
            (Some(_), false) => return Err(IssuerError::Excludes("tenants", "tenant-prefix")),
            (None, true) => return Err(IssuerError::NoTenants),
        };
        if self.tenant_optional && !allowed.contains(DEFAULT_TENANT) {
            return Err(IssuerError::OptionalTenant);
        }
        let path = self.tenant_claim.clone();
        Ok(TenantRule {
            claim: Some(Named {
                path: path.unwrap_or_else(|| ClaimPath::named("tenant")),
                optional: self.tenant_optional,
            }),
            allowed,
        })
    }

    fn scope_rule(&self) -> Result<ScopeRule, IssuerError> {
        if self.scope_optional && self.scope_claim.is_none() {
            return Err(IssuerError::Needs("scope-optional", "scope-claim"));
        }
        let grants = match self.grants.as_slice() {
            [] => &[Right::Read, Right::Write],
            grants => grants,
        };
        let prefix = self.scope_prefix.as_deref();
        Ok(ScopeRule {
            claim: self.scope_claim.clone().map(|path| Named {
                path,
                optional: self.scope_optional,
            }),
            prefix: prefix.unwrap_or(DEFAULT_PREFIX).to_owned(),
            granted: Scope::of_rights(grants),
        })
    }
}

/// Returns true if the URL leads to this very host, whatever a resolver says.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256]
}

fn listed(
    name: &'static str,
    values: &[String],
    waived: bool,
) -> Result<Option<Vec<String>>, IssuerError> {
    if values.is_empty() != waived {
        return Err(IssuerError::Waiver(name));
    }
    if values.iter().any(String::is_empty) {
        return Err(IssuerError::Empty(name));
    }
    Ok((!waived).then(|| values.to_vec()))
}

/// Reads a text as a flag's value is read.
fn one<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    One(String),
    List(Vec<String>),
}

/// Reads a text, or each text of a list, as a flag's values are read.
fn several<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
{
    let texts = match Several::deserialize(deserializer)? {
        Several::One(text) => vec![text],
        Several::List(texts) => texts,
    };
    let parsed: Result<Vec<T>, _> = texts.iter().map(|text| text.parse()).collect();
    parsed.map_err(D::Error::custom)
}
