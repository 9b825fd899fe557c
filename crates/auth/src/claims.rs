//! What a token says, checked against what the settings demand; `now` is a parameter.

use confab_protocol::fair::Owner;
use confab_protocol::ids::{TenantId, UserId};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::claim_path::ClaimPath;
use crate::error::{AuthError, Defect, Part};
use crate::scope::{Scope, ScopeRule};
use crate::tenants::TenantRule;

/// The device of tokens that need not name one.
const DEFAULT_DEVICE: &str = "default";

/// The longest device and login, in characters.
const MAX_TEXT_CHARS: usize = 128;

/// The caller that a valid token names. It does not hold the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant: as the tenant claim or the settings say.
    pub tenant: TenantId,
    /// The user claim.
    pub user: UserId,
    /// The device claim, or `default` where it is optional and missing.
    pub device: String,
    /// The session claim: the login, which can be revoked. Empty where it is optional and missing (no login has that name).
    pub login_session: String,
    /// `iat`.
    pub issued_at: OffsetDateTime,
    /// `exp`. The token is good until then, and the leeway more ([`crate::Verifier::leeway`]).
    pub expires_at: OffsetDateTime,
    /// What the token allows.
    pub scope: Scope,
}

impl Caller {
    /// Whose share it counts in.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
        }
    }
}

/// A claim whose place can be set, and which can be declared optional.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) path: ClaimPath,
    pub(crate) optional: bool,
}

/// A claim that names the application that a token was made for, and the applications that are let in.
#[derive(Debug, Clone)]
pub(crate) struct ClientRule {
    pub(crate) path: ClaimPath,
    pub(crate) allowed: Vec<String>,
}

/// The settings' demands on one issuer's claims.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The issuers of which a token must name one; none: any will do.
    pub(crate) issuers: Option<Vec<String>>,
    /// The audiences of which a token must name one; none: any will do.
    pub(crate) audiences: Option<Vec<String>>,
    /// The applications that are let in; none: all.
    pub(crate) client: Option<ClientRule>,
    /// How far the clocks may be apart.
    pub(crate) leeway: Duration,
    /// The longest time from `iat` to `exp`: a revocation is kept for as long, and must outlive what it covers.
    pub(crate) max_lifetime: Duration,
    pub(crate) user: ClaimPath,
    pub(crate) device: Named,
    pub(crate) session: Named,
    pub(crate) tenant: TenantRule,
    pub(crate) scope: ScopeRule,
    pub(crate) not_before_required: bool,
}

/// The times that a token names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenTimes {
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    not_before: Option<OffsetDateTime>,
}

impl Rules {
    /// Returns who the claims say is calling.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for claims that are not good at any time, before the times are looked at:
    /// [`AuthError::Expired`] from `exp` on (RFC 7519 section 4.1.4), [`AuthError::NotYetValid`] before `nbf` and before
    /// `iat` (a token from the future is either a clock gone wrong or made up), each with the leeway.
    pub(crate) fn check(
        &self,
        claims: &Map<String, Value>,
        now: OffsetDateTime,
    ) -> Result<Caller, AuthError> {
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        self.check_client(claims)?;
        let times = self.times(claims)?;
        let caller = Caller {
            tenant: self.tenant.read(claims)?,
            user: self.user(claims)?,
            device: self.device(claims)?,
            login_session: self.login(claims)?,
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            scope: self.scope.read(claims)?,
        };
        self.check_times(times, now)?;
        Ok(caller)
    }

    pub(crate) fn check_issuer<'a>(
        &self,
        claims: &'a Map<String, Value>,
    ) -> Result<Option<&'a str>, Defect> {
        let Some(allowed) = &self.issuers else {
            return Ok(None);
        };
        let issuer = issuer_of(claims)?;
        if allowed.iter().any(|one| one == issuer) {
            Ok(Some(issuer))
        } else {
            Err(Defect::Issuer)
        }
    }

    /// `aud` is a text or a list of texts (RFC 7519 section 4.1.3). Gives the one that is ours.
    pub(crate) fn check_audience(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<Option<&str>, Defect> {
        let Some(allowed) = &self.audiences else {
            return Ok(None);
        };
        let named = match claims.get("aud") {
            None => return Err(Defect::MissingClaim(Part::Audience, "aud".to_owned())),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut found = None;
        for audience in named {
            let audience = audience
                .as_str()
                .ok_or_else(|| bad(Part::Audience, "aud"))?;
            found = found.or(allowed.iter().find(|one| *one == audience));
        }
        found.map(|one| Some(one.as_str())).ok_or(Defect::Audience)
    }

    /// The application that the token was made for, where that counts.
    pub(crate) fn check_client<'a>(
        &self,
        claims: &'a Map<String, Value>,
    ) -> Result<Option<&'a str>, Defect> {
        let Some(ClientRule { path, allowed }) = &self.client else {
            return Ok(None);
        };
        let client = text(claims, Part::Client, path)?;
        if allowed.iter().any(|one| one == client) {
            Ok(Some(client))
        } else {
            Err(Defect::Client)
        }
    }

    pub(crate) fn user(&self, claims: &Map<String, Value>) -> Result<UserId, Defect> {
        let user = text(claims, Part::User, &self.user)?;
        user.parse()
            .map_err(|_id| bad(Part::User, self.user.as_str()))
    }

    pub(crate) fn device(&self, claims: &Map<String, Value>) -> Result<String, Defect> {
        let device = self.device.read(claims, Part::Device)?;
        Ok(device.unwrap_or_else(|| DEFAULT_DEVICE.to_owned()))
    }

    pub(crate) fn login(&self, claims: &Map<String, Value>) -> Result<String, Defect> {
        Ok(self.session.read(claims, Part::Login)?.unwrap_or_default())
    }

    pub(crate) fn times(&self, claims: &Map<String, Value>) -> Result<TokenTimes, Defect> {
        let not_before = match claims.contains_key("nbf") || self.not_before_required {
            true => Some(numeric_date(claims, Part::NotBefore, "nbf")?),
            false => None,
        };
        let times = TokenTimes {
            issued_at: numeric_date(claims, Part::IssuedAt, "iat")?,
            expires_at: numeric_date(claims, Part::Expiry, "exp")?,
            not_before,
        };
        if times.expires_at - times.issued_at > self.max_lifetime {
            return Err(Defect::Lifetime);
        }
        Ok(times)
    }

    pub(crate) fn check_times(
        &self,
        times: TokenTimes,
        now: OffsetDateTime,
    ) -> Result<(), AuthError> {
        if now.saturating_sub(self.leeway) >= times.expires_at {
            return Err(AuthError::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if times.not_before.is_some_and(|time| time > latest) {
            return Err(AuthError::NotYetValid("nbf"));
        }
        if times.issued_at > latest {
            return Err(AuthError::NotYetValid("iat"));
        }
        Ok(())
    }
}

impl Named {
    /// The claim's value; none where it is missing and may be.
    pub(crate) fn find<'a>(
        &self,
        claims: &'a Map<String, Value>,
        part: Part,
    ) -> Result<Option<&'a Value>, Defect> {
        match self.path.find(claims) {
            None if self.optional => Ok(None),
            None => Err(Defect::MissingClaim(part, self.path.to_string())),
            found => Ok(found),
        }
    }

    /// The claim does not have the form that it must have.
    pub(crate) fn bad(&self, part: Part) -> Defect {
        bad(part, self.path.as_str())
    }

    /// The claim: 1 to 128 characters, none of them a control character.
    fn read(&self, claims: &Map<String, Value>, part: Part) -> Result<Option<String>, Defect> {
        let Some(value) = self.find(claims, part)? else {
            return Ok(None);
        };
        let text = value.as_str().ok_or_else(|| self.bad(part))?;
        let fits = !text.is_empty() && text.chars().nth(MAX_TEXT_CHARS).is_none();
        if !fits || text.chars().any(char::is_control) {
            return Err(self.bad(part));
        }
        Ok(Some(text.to_owned()))
    }
}

/// `iss`.
pub(crate) fn issuer_of(claims: &Map<String, Value>) -> Result<&str, Defect> {
    let value = claims
        .get("iss")
        .ok_or_else(|| Defect::MissingClaim(Part::Issuer, "iss".to_owned()))?;
    value.as_str().ok_or_else(|| bad(Part::Issuer, "iss"))
}

fn bad(part: Part, claim: &str) -> Defect {
    Defect::BadClaim(part, claim.to_owned())
}

fn text<'a>(
    claims: &'a Map<String, Value>,
    part: Part,
    path: &ClaimPath,
) -> Result<&'a str, Defect> {
    let value = path
        .find(claims)
        .ok_or_else(|| Defect::MissingClaim(part, path.to_string()))?;
    value.as_str().ok_or_else(|| bad(part, path.as_str()))
}

/// Seconds since 1970, with or without a fraction (RFC 7519 section 2).
fn numeric_date(
    claims: &Map<String, Value>,
    part: Part,
    name: &str,
) -> Result<OffsetDateTime, Defect> {
    let value = claims
        .get(name)
        .ok_or_else(|| Defect::MissingClaim(part, name.to_owned()))?;
    let since = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => i64::try_from(seconds).ok().map(Duration::seconds),
        (None, Some(seconds)) if seconds >= 0.0 => Duration::checked_seconds_f64(seconds),
        _ => None,
    };
    since
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| bad(part, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_accept_only_whole_or_fractional_seconds() {
        let date = |value: Value| {
            numeric_date(
                &Map::from_iter([("t".to_owned(), value)]),
                Part::Expiry,
                "t",
            )
        };
        assert_eq!(date(1.into()).unwrap().unix_timestamp(), 1);
        assert_eq!(
            date(1.5.into()).unwrap().unix_timestamp_nanos(),
            1_500_000_000
        );
        for value in [
            Value::Null,
            "1".into(),
            (-1).into(),
            1e300.into(),
            u64::MAX.into(),
            true.into(),
        ] {
            assert_eq!(date(value.clone()), Err(bad(Part::Expiry, "t")), "{value}");
        }
    }
}
