//! Why a caller is refused: a code for the caller, the words for the log.

use confab_protocol::error::Code;

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
}

/// What is wrong inside an invalid token.
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
    #[error("no claim {0:?}")]
    MissingClaim(String),
    /// A claim that does not have the form it must have.
    #[error("bad claim {0:?}")]
    BadClaim(String),
    /// From `iat` to `exp` is longer than allowed.
    #[error("good for longer than tokens may be")]
    Lifetime,
    /// `iss` is not one of ours.
    #[error("another issuer")]
    Issuer,
    /// `aud` names none of ours.
    #[error("another audience")]
    Audience,
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
    fn every_401_has_a_challenge_and_nothing_is_said_of_a_token_that_is_missing() {
        for code in Code::ALL.iter().filter(|code| code.status() == 401) {
            let value = challenge(*code).unwrap();
            assert!(value.starts_with("Bearer realm="));
            assert_eq!(value.contains("error="), *code != Code::MissingToken);
        }
        assert_eq!(challenge(Code::AuthUnavailable), None);
    }
}
