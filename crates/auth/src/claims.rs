//! What a token says, checked against what the settings demand; `now` is a parameter.

use confab_protocol::fair::Owner;
use confab_protocol::ids::{TenantId, UserId};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::error::{AuthError, Defect};

/// The tenant of tokens that name none, and the device of tokens that need not.
const DEFAULT: &str = "default";

/// The longest device and login, in characters.
const MAX_TEXT: usize = 128;

/// Who is calling: what a good token said. It does not hold the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant claim, or `default`.
    pub tenant: TenantId,
    /// `sub`.
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

/// What a token allows (API.md, Scopes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    read: bool,
    write: bool,
    admin: bool,
}

impl Scope {
    /// Reads a `scope` claim (RFC 8693 section 4.2): without a `confab:` entry it allows reading and writing, with one
    /// only what it names. `confab:admin` includes both; an entry of ours that nobody knows allows nothing.
    #[must_use]
    pub fn parse(claim: &str) -> Self {
        let ours = || {
            claim
                .split(' ')
                .filter_map(|entry| entry.strip_prefix("confab:"))
        };
        let plain = ours().next().is_none();
        let admin = ours().any(|entry| entry == "admin");
        Self {
            read: plain || admin || ours().any(|entry| entry == "read"),
            write: plain || admin || ours().any(|entry| entry == "write"),
            admin,
        }
    }

    /// Whether the user's conversations may be read and heard.
    #[must_use]
    pub const fn can_read(self) -> bool {
        self.read
    }

    /// Whether anything may be changed or sent.
    #[must_use]
    pub const fn can_write(self) -> bool {
        self.write
    }

    /// Whether the caller acts in any conversation without being a member.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        self.admin
    }
}

/// A claim whose name can be set, and which can be declared optional.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) optional: bool,
}

/// What the settings demand of claims.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The issuers of which a token must name one; none: any will do.
    pub(crate) issuers: Option<Vec<String>>,
    /// The audiences of which a token must name one; none: any will do.
    pub(crate) audiences: Option<Vec<String>>,
    /// How far the clocks may be apart.
    pub(crate) leeway: Duration,
    /// The longest time from `iat` to `exp`: a revocation is kept for as long, and must outlive what it covers.
    pub(crate) max_lifetime: Duration,
    pub(crate) device: Named,
    pub(crate) session: Named,
    pub(crate) tenant: String,
    pub(crate) not_before_required: bool,
}

impl Rules {
    /// Who the claims say is calling.
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
        let not_before = match claims.contains_key("nbf") || self.not_before_required {
            true => Some(numeric_date(claims, "nbf")?),
            false => None,
        };
        let caller = Caller {
            tenant: self.tenant(claims)?,
            user: text(claims, "sub")?.parse().map_err(|_id| bad("sub"))?,
            device: self
                .device
                .read(claims)?
                .unwrap_or_else(|| DEFAULT.to_owned()),
            login_session: self.session.read(claims)?.unwrap_or_default(),
            issued_at: numeric_date(claims, "iat")?,
            expires_at: numeric_date(claims, "exp")?,
            scope: scope(claims)?,
        };
        if caller.expires_at - caller.issued_at > self.max_lifetime {
            return Err(Defect::Lifetime.into());
        }
        self.check_times(&caller, not_before, now)?;
        Ok(caller)
    }

    fn check_times(
        &self,
        caller: &Caller,
        not_before: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<(), AuthError> {
        if now.saturating_sub(self.leeway) >= caller.expires_at {
            return Err(AuthError::Expired);
        }
        let latest = now.saturating_add(self.leeway);
        if not_before.is_some_and(|time| time > latest) {
            return Err(AuthError::NotYetValid("nbf"));
        }
        if caller.issued_at > latest {
            return Err(AuthError::NotYetValid("iat"));
        }
        Ok(())
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Defect> {
        let Some(allowed) = &self.issuers else {
            return Ok(());
        };
        let issuer = text(claims, "iss")?;
        if allowed.iter().any(|one| one == issuer) {
            Ok(())
        } else {
            Err(Defect::Issuer)
        }
    }

    /// `aud` is a text or a list of texts (RFC 7519 section 4.1.3).
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Defect> {
        let Some(allowed) = &self.audiences else {
            return Ok(());
        };
        let named = match claims.get("aud") {
            None => return Err(missing("aud")),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut found = false;
        for audience in named {
            let audience = audience.as_str().ok_or_else(|| bad("aud"))?;
            found |= allowed.iter().any(|one| one == audience);
        }
        if found { Ok(()) } else { Err(Defect::Audience) }
    }

    fn tenant(&self, claims: &Map<String, Value>) -> Result<TenantId, Defect> {
        let tenant = match claims.contains_key(&self.tenant) {
            true => text(claims, &self.tenant)?,
            false => DEFAULT,
        };
        tenant.parse().map_err(|_id| bad(&self.tenant))
    }
}

impl Named {
    /// The claim: 1 to 128 characters, none of them a control character.
    fn read(&self, claims: &Map<String, Value>) -> Result<Option<String>, Defect> {
        if self.optional && !claims.contains_key(&self.name) {
            return Ok(None);
        }
        let text = text(claims, &self.name)?;
        let fits = !text.is_empty() && text.chars().nth(MAX_TEXT).is_none();
        if !fits || text.chars().any(char::is_control) {
            return Err(bad(&self.name));
        }
        Ok(Some(text.to_owned()))
    }
}

fn missing(name: &str) -> Defect {
    Defect::MissingClaim(name.to_owned())
}

fn bad(name: &str) -> Defect {
    Defect::BadClaim(name.to_owned())
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, Defect> {
    let value = claims.get(name).ok_or_else(|| missing(name))?;
    value.as_str().ok_or_else(|| bad(name))
}

/// Seconds since 1970, with or without a fraction (RFC 7519 section 2).
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<OffsetDateTime, Defect> {
    let value = claims.get(name).ok_or_else(|| missing(name))?;
    let since = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => i64::try_from(seconds).ok().map(Duration::seconds),
        (None, Some(seconds)) if seconds >= 0.0 => Duration::checked_seconds_f64(seconds),
        _ => None,
    };
    since
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| bad(name))
}

/// A scope of another form than text is refused: to ignore it would be to allow everything.
fn scope(claims: &Map<String, Value>) -> Result<Scope, Defect> {
    match claims.contains_key("scope") {
        true => text(claims, "scope").map(Scope::parse),
        false => Ok(Scope::parse("")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(claim: &str) -> (bool, bool, bool) {
        let scope = Scope::parse(claim);
        (scope.can_read(), scope.can_write(), scope.is_admin())
    }

    #[test]
    fn a_scope_without_an_entry_of_ours_reads_and_writes() {
        for claim in [
            "",
            "openid profile",
            "confab",
            "CONFAB:read",
            "other:confab:read",
        ] {
            assert_eq!(allows(claim), (true, true, false), "{claim}");
        }
    }

    #[test]
    fn a_scope_with_an_entry_of_ours_allows_only_what_it_names() {
        assert_eq!(allows("openid confab:read"), (true, false, false));
        assert_eq!(allows("confab:write"), (false, true, false));
        assert_eq!(allows("confab:read confab:write"), (true, true, false));
        assert_eq!(allows("confab:admin"), (true, true, true));
        assert_eq!(allows("confab:"), (false, false, false));
        assert_eq!(allows("confab:everything"), (false, false, false));
    }

    #[test]
    fn dates_are_seconds_with_or_without_a_fraction_and_nothing_else() {
        let date = |value: Value| numeric_date(&Map::from_iter([("t".to_owned(), value)]), "t");
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
            assert_eq!(date(value.clone()), Err(bad("t")), "{value}");
        }
    }
}
