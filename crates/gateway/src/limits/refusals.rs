//! What operators and callers are told of tokens that are refused: never the token.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use confab_auth::{AuthError, Outline};
use confab_protocol::chain::chain;
use confab_protocol::error::Failure;
use tracing::warn;

/// The time between two lines about tokens that are refused for the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The log of refused tokens, and what their callers are told.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Whether callers are told what is wrong: for development.
    explains: bool,
    /// By kind of refusal and part of the token, of which there are few.
    logged: Mutex<BTreeMap<Kind, Logged>>,
}

type Kind = (&'static str, &'static str);

#[derive(Debug)]
struct Logged {
    at: Instant,
    /// How many were refused since, without a line.
    unlogged: u64,
}

impl Refusals {
    pub(crate) fn new(explains: bool) -> Self {
        Self {
            explains,
            logged: Mutex::default(),
        }
    }

    /// Logs the refusal, where none of its kind was logged within a minute, and gives the answer. `token` is what was refused, where
    /// there was one.
    pub(crate) fn refused(&self, error: &AuthError, token: Option<&str>, now: Instant) -> Failure {
        // Who says nothing at all is no news, and who probes is many.
        if *error != AuthError::Missing
            && let Some(count) = self.due(error, now)
        {
            log(error, token, count);
        }
        match self.explains {
            true => Failure::new(error.code(), explanation(error)),
            false => Failure::of(error.code()),
        }
    }

    /// How many were refused since the last line of this kind, when it is time for another.
    fn due(&self, error: &AuthError, now: Instant) -> Option<u64> {
        let kind = (
            error.label(),
            error.part().map_or("", confab_auth::Part::name),
        );
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = logged.get_mut(&kind) else {
            logged.insert(
                kind,
                Logged {
                    at: now,
                    unlogged: 0,
                },
            );
            return Some(1);
        };
        last.unlogged += 1;
        if now.saturating_duration_since(last.at) < LOG_INTERVAL {
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.unlogged))
    }
}

/// What is said is of a token that nobody vouches for, and names of claims without what they hold.
fn log(error: &AuthError, token: Option<&str>, count: u64) {
    let outline = token.and_then(confab_auth::outline);
    let Outline {
        issuer,
        audience,
        claims,
    } = outline.unwrap_or_else(|| Outline {
        issuer: None,
        audience: Vec::new(),
        claims: Vec::new(),
    });
    warn!(
        reason = %chain(error),
        remedy = error.remedy(),
        count,
        token.issuer = issuer,
        token.audience = audience.join(" "),
        token.claims = claims.join(" "),
        "tokens are refused; `confab token --check -` explains one"
    );
}

fn explanation(error: &AuthError) -> String {
    match error.remedy() {
        Some(remedy) => format!("{error}. To mend it: {remedy}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use confab_auth::{Defect, Part};
    use confab_protocol::error::Code;

    use super::*;

    fn missing(part: Part) -> AuthError {
        Defect::MissingClaim(part, "x".to_owned()).into()
    }

    #[test]
    fn each_kind_is_logged_once_a_minute() {
        let refusals = Refusals::new(false);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (tenant, user) = (missing(Part::Tenant), missing(Part::User));
        assert_eq!(refusals.due(&tenant, at(0)), Some(1));
        assert_eq!(refusals.due(&tenant, at(1)), None);
        assert_eq!(refusals.due(&user, at(2)), Some(1));
        assert_eq!(refusals.due(&tenant, at(59)), None);
        assert_eq!(refusals.due(&tenant, at(60)), Some(3));
        assert_eq!(refusals.due(&tenant, at(61)), None);
    }

    #[test]
    fn refusal_reason_is_told_only_when_set() {
        let error = missing(Part::Tenant);
        let told = |explains| {
            let failure = Refusals::new(explains).refused(&error, None, Instant::now());
            assert_eq!(failure.code, Code::InvalidToken);
            failure.detail
        };
        assert_eq!(told(false), Code::InvalidToken.title());
        let why = told(true);
        assert!(
            why.contains("no claim \"x\"") && why.contains("--jwt-tenant-claim"),
            "{why}"
        );
    }
}
