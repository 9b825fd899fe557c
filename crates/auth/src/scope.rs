//! What a token allows: scopes, where they stand, and which of them an issuer may grant.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::claims::Named;
use crate::error::{Defect, Part};

/// The prefix of confab's scopes where no setting says otherwise.
pub(crate) const DEFAULT_PREFIX: &str = "confab:";

/// The claims that hold scopes at the usual providers, read where no setting names one: RFC 8693 has `scope`, Entra and Okta
/// `scp`, Entra's applications `roles`, Auth0 `permissions`.
pub(crate) const USUAL_CLAIMS: [&str; 4] = ["scope", "scp", "roles", "permissions"];

/// One of the things that a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To read and hear the user's conversations.
    Read,
    /// To change and send.
    Write,
    /// To act in any conversation of the tenant, and to revoke.
    Admin,
}

/// A text that is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be read, write or admin")]
pub struct UnknownRight;

impl Right {
    /// Its name behind the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Right {
    type Err = UnknownRight;

    fn from_str(name: &str) -> Result<Self, UnknownRight> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|right| right.name() == name)
            .ok_or(UnknownRight)
    }
}

/// The rights that a token grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    read: bool,
    write: bool,
    admin: bool,
}

impl Scope {
    /// The rights of a token that names none of confab's scopes and need not.
    const UNSCOPED_SCOPE: Self = Self {
        read: true,
        write: true,
        admin: false,
    };

    /// Reads a `scope` claim (RFC 8693 section 4.2) as without any setting: without a `confab:` entry it allows reading and
    /// writing, with one only what it names. `confab:admin` includes both; an entry of ours that nobody knows allows nothing.
    #[must_use]
    pub fn parse(claim: &str) -> Self {
        Self::of_entries(claim.split(' '), DEFAULT_PREFIX).unwrap_or(Self::UNSCOPED_SCOPE)
    }

    /// Returns what these rights allow together.
    pub(crate) fn of_rights(rights: &[Right]) -> Self {
        let admin = rights.contains(&Right::Admin);
        Self {
            read: admin || rights.contains(&Right::Read),
            write: admin || rights.contains(&Right::Write),
            admin,
        }
    }

    /// Returns what the entries with this prefix allow; none where there is no such entry.
    fn of_entries<'a>(entries: impl Iterator<Item = &'a str>, prefix: &str) -> Option<Self> {
        let mut ours = entries
            .filter(|entry| !entry.is_empty())
            .filter_map(|entry| entry.strip_prefix(prefix))
            .peekable();
        ours.peek()?;
        let rights: Vec<Right> = ours.filter_map(|name| name.parse().ok()).collect();
        Some(Self::of_rights(&rights))
    }

    /// Returns true if the user's conversations may be read and heard.
    #[must_use]
    pub const fn can_read(self) -> bool {
        self.read
    }

    /// Returns true if anything may be changed or sent.
    #[must_use]
    pub const fn can_write(self) -> bool {
        self.write
    }

    /// Returns true if the caller acts in any conversation without being a member.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        self.admin
    }

    const fn within(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            admin: self.admin && other.admin,
        }
    }

    /// The first right that is here and not in `granted`.
    fn beyond(self, granted: Self) -> Option<Right> {
        let rights = [
            (Right::Admin, self.admin && !granted.admin),
            (Right::Read, self.read && !granted.read),
            (Right::Write, self.write && !granted.write),
        ];
        rights
            .into_iter()
            .find_map(|(right, is_beyond)| is_beyond.then_some(right))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = [
            (Right::Read, self.read),
            (Right::Write, self.write),
            (Right::Admin, self.admin),
        ];
        let names: Vec<&str> = held
            .into_iter()
            .filter_map(|(right, is_held)| is_held.then_some(right.name()))
            .collect();
        f.write_str(if names.is_empty() { "nothing" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// The claim that names scopes in an issuer's tokens, and those that count.
#[derive(Debug, Clone)]
pub(crate) struct ScopeRule {
    /// The claim that a setting names; none: the usual ones are read.
    pub(crate) claim: Option<Named>,
    /// What stands before the names of ours.
    pub(crate) prefix: String,
    /// What the issuer may grant.
    pub(crate) granted: Scope,
}

impl ScopeRule {
    /// Returns what the claims allow. A claim that a setting names allows only what its entries name. Without such a setting, or without the
    /// claim where it is optional, a token that has no entry of ours may read and write, as far as the issuer may grant it.
    ///
    /// # Errors
    /// Where the claim is missing, is neither text nor a list of texts, or names what the issuer may not grant.
    pub(crate) fn read(&self, claims: &Map<String, Value>) -> Result<Scope, Defect> {
        let named = match &self.claim {
            Some(claim) => match claim.find(claims, Part::Scope)? {
                None => None,
                Some(value) => {
                    let entries = entries(value).ok_or_else(|| claim.bad(Part::Scope))?;
                    let nothing = Scope::of_rights(&[]);
                    let named = Scope::of_entries(entries.into_iter(), &self.prefix);
                    Some(named.unwrap_or(nothing))
                }
            },
            None => Scope::of_entries(usual(claims)?.into_iter(), &self.prefix),
        };
        let Some(named) = named else {
            return Ok(Scope::UNSCOPED_SCOPE.within(self.granted));
        };
        match named.beyond(self.granted) {
            None => Ok(named),
            Some(right) => Err(Defect::Scope(right)),
        }
    }

    /// The claims that are read, for people.
    pub(crate) fn place(&self) -> String {
        match &self.claim {
            Some(claim) => claim.path.to_string(),
            None => USUAL_CLAIMS.join(", "),
        }
    }
}

/// A text with spaces between its entries, or a list of texts.
fn entries(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(text.split(' ').collect()),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// The entries of all claims that usually hold scopes. `scope` must have a form that can be read: to ignore it would be to allow
/// everything. The others have other meanings at some providers, and then other forms.
fn usual(claims: &Map<String, Value>) -> Result<Vec<&str>, Defect> {
    let mut all = Vec::new();
    for name in USUAL_CLAIMS {
        match claims.get(name).map(entries) {
            None => {}
            Some(Some(entries)) => all.extend(entries),
            Some(None) if name == "scope" => {
                return Err(Defect::BadClaim(Part::Scope, name.to_owned()));
            }
            Some(None) => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allows(claim: &str) -> (bool, bool, bool) {
        let scope = Scope::parse(claim);
        (scope.can_read(), scope.can_write(), scope.is_admin())
    }

    fn rule(claim: Option<(&str, bool)>, prefix: &str, granted: &[Right]) -> ScopeRule {
        ScopeRule {
            claim: claim.map(|(path, optional)| Named {
                path: path.parse().unwrap(),
                optional,
            }),
            prefix: prefix.to_owned(),
            granted: Scope::of_rights(granted),
        }
    }

    fn read(rule: &ScopeRule, claims: Value) -> Result<String, Defect> {
        let scope = rule.read(claims.as_object().unwrap());
        scope.map(|scope| scope.to_string())
    }

    const READ_WRITE: &[Right] = &[Right::Read, Right::Write];

    #[test]
    fn scope_without_our_entries_reads_and_writes() {
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
    fn scope_with_our_entries_allows_only_those() {
        assert_eq!(allows("openid confab:read"), (true, false, false));
        assert_eq!(allows("confab:write"), (false, true, false));
        assert_eq!(allows("confab:read confab:write"), (true, true, false));
        assert_eq!(allows("confab:admin"), (true, true, true));
        assert_eq!(allows("confab:"), (false, false, false));
        assert_eq!(allows("confab:everything"), (false, false, false));
    }

    #[test]
    fn usual_claims_restrict_in_either_form() {
        let rule = rule(None, "confab:", READ_WRITE);
        for name in USUAL_CLAIMS {
            for value in [json!("a confab:read"), json!(["a", "confab:read"])] {
                assert_eq!(
                    read(&rule, json!({ name: value })),
                    Ok("read".into()),
                    "{name}"
                );
            }
        }
        assert_eq!(
            read(&rule, json!({"scp": {"x": 1}})),
            Ok("read, write".into())
        );
        assert_eq!(
            read(&rule, json!({"scope": {"x": 1}})),
            Err(Defect::BadClaim(Part::Scope, "scope".into()))
        );
    }

    #[test]
    fn named_claim_allows_only_what_it_names() {
        let rule = rule(Some(("/a/roles", false)), "", READ_WRITE);
        let roles =
            |roles: Value| json!({"a": {"roles": roles}, "scope": "confab:read confab:write"});
        assert_eq!(read(&rule, roles(json!(["read"]))), Ok("read".into()));
        assert_eq!(
            read(&rule, roles(json!("read write"))),
            Ok("read, write".into())
        );
        assert_eq!(read(&rule, roles(json!(["other"]))), Ok("nothing".into()));
        assert_eq!(read(&rule, roles(json!([]))), Ok("nothing".into()));
        assert_eq!(read(&rule, roles(json!(""))), Ok("nothing".into()));
        let path = || "/a/roles".to_owned();
        assert_eq!(
            read(&rule, json!({"a": {}})),
            Err(Defect::MissingClaim(Part::Scope, path()))
        );
        for bad in [json!(1), json!(null), json!(["read", 1])] {
            assert_eq!(
                read(&rule, roles(bad)),
                Err(Defect::BadClaim(Part::Scope, path()))
            );
        }
    }

    #[test]
    fn optional_claim_that_is_missing_reads_and_writes() {
        let rule = rule(Some(("scp", true)), "confab:", READ_WRITE);
        assert_eq!(read(&rule, json!({})), Ok("read, write".into()));
        assert_eq!(read(&rule, json!({"scp": "openid"})), Ok("nothing".into()));
    }

    #[test]
    fn issuer_grants_no_more_than_it_may() {
        let of = |granted: &[Right], scope: &str| {
            read(&rule(None, "confab:", granted), json!({"scope": scope}))
        };
        assert_eq!(
            of(READ_WRITE, "confab:admin"),
            Err(Defect::Scope(Right::Admin))
        );
        assert_eq!(
            of(&[Right::Read], "confab:write"),
            Err(Defect::Scope(Right::Write))
        );
        assert_eq!(of(&[Right::Read], "openid"), Ok("read".into()));
        assert_eq!(
            of(&[Right::Admin], "confab:admin"),
            Ok("read, write, admin".into())
        );
        assert_eq!(of(&[Right::Admin], ""), Ok("read, write".into()));
    }
}
