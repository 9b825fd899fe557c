//! Why a caller is refused: a code for the caller, the words for the log.

use confab_protocol::error::Code;

use crate::scope::Right;

/// A refused caller. `Display` is for the log and never holds the token; the caller gets [`AuthError::code`] alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No Authorization header, another scheme, or an empty token.
    #[error("no bearer token")]
    Missing,
    /// A token that is not good, now or ever.
    #[error("invalid token: {0}")]
    Invalid(#[from] Defect),
    /// `exp` has passed, by more than the leeway.
    #[error("the token has expired")]
    Expired,
    /// The named claim (`nbf` or `iat`) lies ahead, by more than the leeway.
    #[error("the token's {0} lies in the future")]
    NotYetValid(&'static str),
    /// No key set was ever loaded, so nothing can be judged.
    #[error("no key set was loaded yet")]
    Unavailable,
}

impl AuthError {
    /// The code that the caller gets, which is also the label of the result in metrics.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Missing => Code::MissingToken,
            Self::Invalid(_) => Code::InvalidToken,
            Self::Expired => Code::TokenExpired,
            Self::NotYetValid(_) => Code::TokenNotYetValid,
            Self::Unavailable => Code::AuthUnavailable,
        }
    }

    /// The kind of refusal, as a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid(defect) => defect.label(),
            Self::Expired => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Unavailable => "no_keys",
        }
    }

    /// The part of the token that it is about, where it is about a claim.
    #[must_use]
    pub const fn part(&self) -> Option<Part> {
        match self {
            Self::Invalid(defect) => defect.part(),
            Self::Missing | Self::Expired | Self::NotYetValid(_) | Self::Unavailable => None,
        }
    }

    /// Returns what to change so that such a token is taken, where that can be said: for operators, never for callers in production.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Invalid(defect) => defect.remedy(),
            Self::Expired => Some(
                "get a fresh token; when it is fresh, compare the clocks of issuer and gateway",
            ),
            Self::NotYetValid(_) => Some(
                "compare the clocks of issuer and gateway; --jwt-leeway says how far they may be apart",
            ),
            Self::Unavailable => {
                Some("look at the warnings about the key set, and at --jwt-jwks-url")
            }
        }
    }
}

/// The purpose that a claim is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Who made the token.
    Issuer,
    /// For whom it was made.
    Audience,
    /// The application that it was made for.
    Client,
    /// The user.
    User,
    /// The tenant.
    Tenant,
    /// The device.
    Device,
    /// The login.
    Login,
    /// What it allows.
    Scope,
    /// When it was made.
    IssuedAt,
    /// From when on it is good.
    NotBefore,
    /// Until when it is good.
    Expiry,
}

impl Part {
    /// Its name, as a metric's label and in explanations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Client => "client",
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Device => "device",
            Self::Login => "login",
            Self::Scope => "scope",
            Self::IssuedAt => "issued_at",
            Self::NotBefore => "not_before",
            Self::Expiry => "expiry",
        }
    }

    /// The setting that says where it stands, or that it need not.
    const fn setting(self) -> &'static str {
        match self {
            Self::Issuer => "tokens must name their issuer, unless --jwt-any-issuer is set",
            Self::Audience => {
                "tokens must name an audience, unless --jwt-any-audience is set; then set --jwt-client-claim"
            }
            Self::Client => {
                "--jwt-client-claim names the claim with the application, often azp, client_id or cid"
            }
            Self::User => "--jwt-user-claim names the claim with the user; without it, sub",
            Self::Tenant => {
                "--jwt-tenant-claim names the claim with the tenant; --single-tenant if there is only one, \
                 --jwt-tenant-optional if tokens without it belong to the tenant default"
            }
            Self::Device => {
                "--jwt-device-claim names the claim with the device; --jwt-device-optional if it may be missing"
            }
            Self::Login => {
                "--jwt-session-claim names the claim with the login; --jwt-session-optional if it may be missing"
            }
            Self::Scope => {
                "--jwt-scope-claim names the claim with scopes (text with spaces, or a list); --jwt-scope-optional if it may be missing"
            }
            Self::IssuedAt | Self::Expiry => {
                "the issuer must give tokens iat and exp, in seconds since 1970"
            }
            Self::NotBefore => {
                "nbf must be seconds since 1970; it may be missing unless --jwt-require-nbf is set"
            }
        }
    }
}

/// A defect of an invalid token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// More than one Authorization header: which one counts would be a guess.
    #[error("two Authorization headers")]
    TwoHeaders,
    /// Larger than any token should be.
    #[error("longer than {} bytes", crate::token::MAX_BYTES)]
    TooLong,
    /// Not the compact serialization of a JWS: three parts.
    #[error("not three parts")]
    NotCompact,
    /// A part that is not strict base64url without padding.
    #[error("the {0} is not base64url")]
    Encoding(&'static str),
    /// A part that is not a JSON object, or has a member twice.
    #[error("the {0} is not a JSON object with distinct members")]
    Json(&'static str),
    /// `crit` is there: extensions that must be understood, and none are.
    #[error("crit in the header")]
    Critical,
    /// `typ` says that this is something else than an access token.
    #[error("typ is not that of an access token")]
    Type,
    /// `alg` is missing, unknown (HMAC and `none` among these), or not allowed here.
    #[error("alg is not allowed")]
    Algorithm,
    /// `kid` is no text, or too long.
    #[error("kid is not a short text")]
    KeyId,
    /// No key has this `kid`.
    #[error("unknown kid")]
    UnknownKey,
    /// Without a `kid`, more than one key fits.
    #[error("no kid, and more than one key fits")]
    AmbiguousKey,
    /// The key is for another algorithm than the token's.
    #[error("alg is not the key's")]
    NotTheKeysAlgorithm,
    /// The signature does not match.
    #[error("bad signature")]
    Signature,
    /// A claim that is required is not there.
    #[error("no claim {1:?}, read for the {name}", name = .0.name())]
    MissingClaim(Part, String),
    /// A claim that does not have the form it must have.
    #[error("bad claim {1:?}, read for the {name}", name = .0.name())]
    BadClaim(Part, String),
    /// From `iat` to `exp` is longer than allowed.
    #[error("good for longer than tokens may be")]
    Lifetime,
    /// `iss` is not one of ours.
    #[error("another issuer")]
    Issuer,
    /// `aud` names none of ours.
    #[error("another audience")]
    Audience,
    /// The client claim names an application that is not let in.
    #[error("another client")]
    Client,
    /// The issuer may not speak for the tenant.
    #[error("a tenant that its issuer may not speak for")]
    Tenant,
    /// The issuer may not grant this.
    #[error("the scope {0}, which its issuer may not grant")]
    Scope(Right),
}

impl Defect {
    const fn label(&self) -> &'static str {
        match self {
            Self::TwoHeaders => "two_headers",
            Self::TooLong => "too_long",
            Self::NotCompact | Self::Encoding(_) | Self::Json(_) => "malformed",
            Self::Critical => "critical_extension",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::KeyId => "key_id",
            Self::UnknownKey => "unknown_key",
            Self::AmbiguousKey => "ambiguous_key",
            Self::NotTheKeysAlgorithm => "algorithm_of_key",
            Self::Signature => "signature",
            Self::MissingClaim(..) => "missing_claim",
            Self::BadClaim(..) => "bad_claim",
            Self::Lifetime => "lifetime",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Client => "client",
            Self::Tenant => "tenant",
            Self::Scope(_) => "scope",
        }
    }

    const fn part(&self) -> Option<Part> {
        match self {
            Self::MissingClaim(part, _) | Self::BadClaim(part, _) => Some(*part),
            Self::Issuer => Some(Part::Issuer),
            Self::Audience => Some(Part::Audience),
            Self::Client => Some(Part::Client),
            Self::Tenant => Some(Part::Tenant),
            Self::Scope(_) => Some(Part::Scope),
            Self::Lifetime => Some(Part::Expiry),
            Self::TwoHeaders
            | Self::TooLong
            | Self::NotCompact
            | Self::Encoding(_)
            | Self::Json(_)
            | Self::Critical
            | Self::Type
            | Self::Algorithm
            | Self::KeyId
            | Self::UnknownKey
            | Self::AmbiguousKey
            | Self::NotTheKeysAlgorithm
            | Self::Signature => None,
        }
    }

    const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::TwoHeaders => Some("send one Authorization header"),
            Self::TooLong => {
                Some("have the issuer put less into the token: groups by reference, fewer claims")
            }
            Self::NotCompact | Self::Encoding(_) | Self::Json(_) => Some(
                "send an access token that is a signed JWT; opaque and encrypted tokens are not taken",
            ),
            Self::Critical | Self::KeyId => None,
            Self::Type => Some("send an access or ID token (typ JWT or at+jwt)"),
            Self::Algorithm => Some(
                "--jwt-algorithms names those that are taken, of RS256, ES256, EdDSA; never HS256",
            ),
            Self::UnknownKey | Self::Signature => Some(
                "the token was signed with a key that is not the issuer's: compare --jwt-jwks-url or --jwt-public-key",
            ),
            Self::AmbiguousKey => Some("have the issuer put kid into its tokens' headers"),
            Self::NotTheKeysAlgorithm => Some("compare the token's alg with the issuer's keys"),
            Self::MissingClaim(part, _) | Self::BadClaim(part, _) => Some(part.setting()),
            Self::Lifetime => Some("--token-max-lifetime says how long tokens may be good for"),
            Self::Issuer => Some(
                "add the token's iss to --jwt-issuer, or as an entry to the file of --jwt-issuers; a final slash counts",
            ),
            Self::Audience => Some("add one of the token's aud to --jwt-audience"),
            Self::Client => Some("add the application to --jwt-clients"),
            Self::Tenant => Some(
                "--jwt-tenants or --jwt-tenant-prefix says which tenants the issuer may speak for",
            ),
            Self::Scope(_) => {
                Some("--jwt-grants says which of read, write, admin the issuer may grant")
            }
        }
    }
}

/// The `WWW-Authenticate` value that goes with `code` (RFC 6750 section 3), if one does: without an error attribute when
/// there was no token, since then nothing was wrong with it.
#[must_use]
pub const fn challenge(code: Code) -> Option<&'static str> {
    match code {
        Code::MissingToken => Some(r#"Bearer realm="confab""#),
        Code::InvalidToken | Code::TokenExpired | Code::TokenNotYetValid | Code::TokenRevoked => {
            Some(r#"Bearer realm="confab", error="invalid_token""#)
        }
        Code::InsufficientScope => Some(r#"Bearer realm="confab", error="insufficient_scope""#),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_token_challenge_says_nothing_about_token() {
        for code in Code::ALL.iter().filter(|code| code.status() == 401) {
            let value = challenge(*code).unwrap();
            assert!(value.starts_with("Bearer realm="));
            assert_eq!(value.contains("error="), *code != Code::MissingToken);
        }
        assert_eq!(challenge(Code::AuthUnavailable), None);
    }
}
