//! What is in a token, for people: part by part against the settings, or in outline for a log. Neither shows the token.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::claims::{Named, Rules, TokenTimes};
use crate::error::{AuthError, Defect};
use crate::issuers::{self, Issuer};
use crate::scope::USUAL_CLAIMS;
use crate::token::ParsedToken;

/// The most of a stranger's text that is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;
/// The most names of claims that are shown.
const MAX_SHOWN_CLAIMS: usize = 40;

/// A comparison of each part of a token with the settings.
#[derive(Debug)]
pub struct Explanation {
    /// In the order in which they are looked at.
    pub findings: Vec<Finding>,
}

/// A comparison of one part of a token with the settings.
#[derive(Debug)]
pub struct Finding {
    /// Which part.
    pub about: &'static str,
    /// What it says and where, or what is wrong.
    pub found: Result<String, AuthError>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { about, found } in &self.findings {
            match found {
                Ok(text) => writeln!(f, "ok     {about:<10}{text}")?,
                Err(error) => {
                    let reason: &dyn fmt::Display = match error {
                        AuthError::Invalid(defect) => defect,
                        other => other,
                    };
                    writeln!(f, "WRONG  {about:<10}{reason}")?;
                    if let Some(remedy) = error.remedy() {
                        writeln!(f, "                 → {remedy}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Looks at all parts of a token that can be looked at.
pub(crate) fn explain(issuers: &[Arc<Issuer>], token: &str, now: OffsetDateTime) -> Explanation {
    let mut findings = Vec::new();
    let mut add = |about, found: Result<String, AuthError>| {
        let is_ok = found.is_ok();
        findings.push(Finding { about, found });
        is_ok
    };
    'looking: {
        let token = match ParsedToken::parse(token) {
            Ok(token) => token,
            Err(defect) => {
                add("form", Err(defect.into()));
                break 'looking;
            }
        };
        add("form", Ok(form(&token)));
        let claims = match token.claims() {
            Ok(claims) => claims,
            Err(defect) => {
                add("payload", Err(defect.into()));
                break 'looking;
            }
        };
        let issuer = match issuers {
            [only] => &**only,
            several => match issuers::named(several, &claims) {
                Ok(issuer) => issuer,
                Err(defect) => {
                    add("issuer", Err(defect.into()));
                    break 'looking;
                }
            },
        };
        add(
            "issuer",
            issuer_text(issuer, &claims).map_err(AuthError::from),
        );
        add("key", key_text(issuer, &token));
        for (about, found) in claim_texts(&issuer.rules, &claims) {
            add(about, found.map_err(AuthError::from));
        }
        let times = issuer.rules.times(&claims);
        let checked = times.map_err(AuthError::from).and_then(|times| {
            issuer.rules.check_times(times, now)?;
            Ok(times_text(times, now))
        });
        add("times", checked);
        add("not used", Ok(unused(&issuer.rules, &claims)));
    }
    Explanation { findings }
}

fn form(token: &ParsedToken<'_>) -> String {
    let key = token.key_id.as_deref();
    let key = key.map_or_else(
        || "without a key id".to_owned(),
        |key| format!("with the key {}", shown(key)),
    );
    format!("a JWT, signed by {} {key}", token.algorithm)
}

fn issuer_text(issuer: &Issuer, claims: &Map<String, Value>) -> Result<String, Defect> {
    let iss = match issuer.rules.check_issuer(claims)? {
        Some(iss) => shown(iss),
        None => "any".to_owned(),
    };
    Ok(format!("{iss}: {}", issuer.name))
}

fn key_text(issuer: &Issuer, token: &ParsedToken<'_>) -> Result<String, AuthError> {
    if !issuer.algorithms.contains(&token.algorithm) {
        return Err(Defect::Algorithm.into());
    }
    let set = issuer.keys.current()?;
    let key = set.find(token.key_id.as_deref(), token.algorithm)?;
    match key.verifies(token) {
        true => Ok(format!(
            "the signature is good; keys of the issuer: {}",
            set.len()
        )),
        false => Err(Defect::Signature.into()),
    }
}

type Found = (&'static str, Result<String, Defect>);

fn claim_texts(rules: &Rules, claims: &Map<String, Value>) -> Vec<Found> {
    let from = |value: &str, path: &str| format!("{}, from {path}", shown(value));
    let audience = rules.check_audience(claims).map(|audience| match audience {
        Some(audience) => from(audience, "aud"),
        None => "any is taken".to_owned(),
    });
    let client = rules
        .check_client(claims)
        .map(|client| match (client, &rules.client) {
            (Some(client), Some(rule)) => from(client, rule.path.as_str()),
            _ => "any is taken".to_owned(),
        });
    let user = rules.user(claims);
    let user = user.map(|user| from(user.as_str(), rules.user.as_str()));
    let optional = |value: Result<String, Defect>, named: &Named| {
        let is_there = named.path.find(claims).is_some();
        value.map(|value| match (is_there, value.as_str()) {
            (true, value) => from(value, named.path.as_str()),
            (false, "") => format!("none: there is no {}, which is optional", named.path),
            (false, value) => format!("{value}: there is no {}, which is optional", named.path),
        })
    };
    let tenant = rules.tenant.read(claims);
    let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
    let tenant = match &rules.tenant.claim {
        Some(named) => optional(tenant, named),
        None => tenant.map(|tenant| from(&tenant, "the settings")),
    };
    let scope = rules.scope.read(claims);
    let scope = scope.map(|scope| format!("may {scope}, from {}", rules.scope.place()));
    vec![
        ("audience", audience),
        ("client", client),
        ("user", user),
        ("tenant", tenant),
        ("device", optional(rules.device(claims), &rules.device)),
        ("login", optional(rules.login(claims), &rules.session)),
        ("scope", scope),
    ]
}

fn times_text(times: TokenTimes, now: OffsetDateTime) -> String {
    let whole = |duration: Duration| Duration::seconds(duration.whole_seconds());
    let left = whole(times.expires_at - now);
    let life = whole(times.expires_at - times.issued_at);
    format!("good for {left} more, of {life}")
}

/// The names of the claims that nothing is read from.
fn unused(rules: &Rules, claims: &Map<String, Value>) -> String {
    let mut used = vec!["iss", "aud", "iat", "nbf", "exp"];
    used.push(rules.user.top());
    used.extend([rules.device.path.top(), rules.session.path.top()]);
    used.extend(rules.tenant.claim.iter().map(|claim| claim.path.top()));
    used.extend(rules.client.iter().map(|client| client.path.top()));
    match &rules.scope.claim {
        Some(claim) => used.push(claim.path.top()),
        None => used.extend(USUAL_CLAIMS),
    }
    let unused = claims.keys().filter(|name| !used.contains(&name.as_str()));
    let names = names(unused);
    match names.is_empty() {
        true => "no other claims".to_owned(),
        false => format!("the claims {}", names.join(", ")),
    }
}

/// The outline of a token that nobody has verified, for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// `iss`, where it is a text.
    pub issuer: Option<String>,
    /// `aud`: its texts.
    pub audience: Vec<String>,
    /// The names of its claims, without their values.
    pub claims: Vec<String>,
}

/// The outline of a token; none where it cannot be read. All texts are a stranger's, cut short and escaped.
#[must_use]
pub fn outline(token: &str) -> Option<Outline> {
    let token = ParsedToken::parse(token).ok()?;
    let claims = token.claims().ok()?;
    let texts = |value: &Value| match value {
        Value::String(text) => vec![shown(text)],
        Value::Array(list) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.take(MAX_SHOWN_CLAIMS).map(shown).collect()
        }
        _ => Vec::new(),
    };
    Some(Outline {
        issuer: claims.get("iss").and_then(Value::as_str).map(shown),
        audience: claims.get("aud").map(texts).unwrap_or_default(),
        claims: names(claims.keys()),
    })
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    all.take(MAX_SHOWN_CLAIMS).map(|name| shown(name)).collect()
}

/// A stranger's text on one line, and not all of it where it is long.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
