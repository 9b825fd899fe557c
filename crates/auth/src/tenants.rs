//! Which tenants an issuer may speak for, and where its tokens name theirs.

use std::fmt;

use confab_protocol::ids::TenantId;
use serde_json::{Map, Value};

use crate::claims::Named;
use crate::error::{Defect, Part};

/// The tenant of tokens that name none where they need not.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// The tenants that an issuer may speak for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tenants {
    /// These.
    Listed(Vec<TenantId>),
    /// All whose names begin so.
    Prefixed(String),
}

impl Tenants {
    /// Returns true if a tenant of this name is among them.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Listed(tenants) => tenants.iter().any(|tenant| tenant.as_str() == name),
            Self::Prefixed(prefix) => name.starts_with(prefix.as_str()),
        }
    }

    /// Returns what is both here and there, in words for people; none where the two share no tenant.
    pub(crate) fn shared_with(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Listed(tenants), any) | (any, Self::Listed(tenants)) => tenants
                .iter()
                .find(|tenant| any.contains(tenant.as_str()))
                .map(|tenant| tenant.as_str().to_owned()),
            (Self::Prefixed(one), Self::Prefixed(two)) => {
                let (short, long) = if one.len() < two.len() {
                    (one, two)
                } else {
                    (two, one)
                };
                long.starts_with(short.as_str()).then(|| format!("{long}*"))
            }
        }
    }
}

impl fmt::Display for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(tenants) => {
                let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
                f.write_str(&names.join(", "))
            }
            Self::Prefixed(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// The rule that finds a token's tenant.
#[derive(Debug, Clone)]
pub(crate) struct TenantRule {
    /// The claim that names it; none: all tokens belong to the one tenant that is allowed.
    pub(crate) claim: Option<Named>,
    /// What the issuer may speak for.
    pub(crate) allowed: Tenants,
}

impl TenantRule {
    /// The tenant of a token.
    ///
    /// # Errors
    /// Where the claim is missing, names no tenant, or one that the issuer may not speak for.
    pub(crate) fn read(&self, claims: &Map<String, Value>) -> Result<TenantId, Defect> {
        let Some(claim) = &self.claim else {
            return match &self.allowed {
                Tenants::Listed(tenants) => tenants.first().cloned().ok_or(Defect::Tenant),
                Tenants::Prefixed(_) => Err(Defect::Tenant),
            };
        };
        let name = match claim.find(claims, Part::Tenant)? {
            None => DEFAULT_TENANT,
            Some(value) => value.as_str().ok_or_else(|| claim.bad(Part::Tenant))?,
        };
        let tenant: TenantId = name.parse().map_err(|_id| claim.bad(Part::Tenant))?;
        if self.allowed.contains(name) {
            Ok(tenant)
        } else {
            Err(Defect::Tenant)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(names: &[&str]) -> Tenants {
        Tenants::Listed(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    fn prefixed(prefix: &str) -> Tenants {
        Tenants::Prefixed(prefix.to_owned())
    }

    fn read(
        claim: Option<(&str, bool)>,
        allowed: Tenants,
        claims: Value,
    ) -> Result<String, Defect> {
        let claim = claim.map(|(path, optional)| Named {
            path: path.parse().unwrap(),
            optional,
        });
        let rule = TenantRule { claim, allowed };
        let tenant = rule.read(claims.as_object().unwrap());
        tenant.map(|tenant| tenant.as_str().to_owned())
    }

    #[test]
    fn issuer_speaks_for_its_own_tenants_only() {
        let claim = Some(("org", false));
        let of = |allowed, org: &str| read(claim, allowed, json!({ "org": org }));
        assert_eq!(of(listed(&["a", "b"]), "b"), Ok("b".into()));
        assert_eq!(of(listed(&["a", "b"]), "c"), Err(Defect::Tenant));
        assert_eq!(of(prefixed("org_"), "org_1"), Ok("org_1".into()));
        assert_eq!(of(prefixed("org_"), "xorg_1"), Err(Defect::Tenant));
        assert_eq!(of(prefixed(""), "any"), Ok("any".into()));
        assert_eq!(
            read(None, listed(&["a"]), json!({"org": "b"})),
            Ok("a".into())
        );
    }

    #[test]
    fn tenant_claim_is_required_unless_optional() {
        let missing = Defect::MissingClaim(Part::Tenant, "org".into());
        assert_eq!(
            read(Some(("org", false)), prefixed(""), json!({})),
            Err(missing)
        );
        let optional = Some(("org", true));
        assert_eq!(
            read(optional, prefixed(""), json!({})),
            Ok("default".into())
        );
        assert_eq!(
            read(optional, listed(&["a"]), json!({})),
            Err(Defect::Tenant)
        );
        for bad in [json!(null), json!(1), json!("a.b"), json!(""), json!(["a"])] {
            let refused = read(optional, prefixed(""), json!({ "org": bad }));
            assert_eq!(refused, Err(Defect::BadClaim(Part::Tenant, "org".into())));
        }
    }

    #[test]
    fn what_two_issuers_share_is_found() {
        let shared = |one: Tenants, two: Tenants| {
            assert_eq!(one.shared_with(&two), two.shared_with(&one));
            one.shared_with(&two)
        };
        assert_eq!(shared(listed(&["a", "b"]), listed(&["c"])), None);
        assert_eq!(
            shared(listed(&["a", "b"]), listed(&["c", "b"])),
            Some("b".into())
        );
        assert_eq!(
            shared(listed(&["a", "org_1"]), prefixed("org_")),
            Some("org_1".into())
        );
        assert_eq!(shared(listed(&["a"]), prefixed("org_")), None);
        assert_eq!(shared(prefixed("org_"), prefixed("")), Some("org_*".into()));
        assert_eq!(
            shared(prefixed("org_"), prefixed("org")),
            Some("org_*".into())
        );
        assert_eq!(shared(prefixed("a"), prefixed("b")), None);
    }
}
