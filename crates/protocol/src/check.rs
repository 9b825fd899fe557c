//! A check of what surrounds a process: made by the crate that knows the subject, shown by `confab doctor` and at the start of a role.

use std::error::Error;

use serde::Serialize;

use crate::chain::MAX_CAUSES;

/// The result of a check, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// The role cannot do its work, or a part of it.
    Fail,
    /// The role works, at a risk or not as it was set up.
    Warn,
    /// Nothing is wrong.
    Ok,
}

/// One check: what was looked at, what was found, why, and what to do. None of its texts holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A name for searches and programs, such as `nats.permissions`.
    pub name: &'static str,
    /// Where it was looked: an address without user and password, a URL without its query, or an issuer.
    pub address: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found, as a sentence.
    pub found: String,
    /// Why, from the outermost error to the innermost; empty where `found` says all.
    pub causes: Vec<String>,
    /// What to do; none where nothing is wrong.
    pub remedy: Option<String>,
}

impl Check {
    /// A check that found nothing wrong.
    #[must_use]
    pub fn ok(name: &'static str, address: &str, found: impl Into<String>) -> Self {
        Self {
            name,
            address: address.to_owned(),
            status: CheckStatus::Ok,
            found: found.into(),
            causes: Vec::new(),
            remedy: None,
        }
    }

    /// A check that found a risk.
    #[must_use]
    pub fn warn(
        name: &'static str,
        address: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: CheckStatus::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(name, address, found)
        }
    }

    /// A check that found what keeps a role from its work.
    #[must_use]
    pub fn fail(
        name: &'static str,
        address: &str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: CheckStatus::Fail,
            ..Self::warn(name, address, found, remedy)
        }
    }

    /// The same check with the chain of `error` as its causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let errors = std::iter::successors(Some(error), |error| (*error).source());
        for error in errors.take(MAX_CAUSES) {
            let text = error.to_string();
            // Some libraries say the source in the outer text, too.
            let is_said = self.causes.last().is_some_and(|last| last.ends_with(&text));
            if !is_said {
                self.causes.push(text);
            }
        }
        self
    }

    /// The same check with a cause that is no error of Rust, such as a server's answer.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// All causes in one line, the innermost last; empty where there is none.
    #[must_use]
    pub fn cause(&self) -> String {
        self.causes.join(": ")
    }
}

/// Seconds that another clock may differ from this one before a check warns.
pub const CLOCK_TOLERANCE_SECONDS: f64 = 3.0;

/// A check of the clock of `whom` at `address`, which is `ahead` seconds before ours; negative when it is behind.
#[must_use]
pub fn clock(name: &'static str, whom: &str, address: &str, ahead: f64) -> Check {
    let direction = if ahead < 0.0 { "behind" } else { "ahead of" };
    let seconds = ahead.abs();
    let found = format!("the clock of {whom} is {seconds:.1} s {direction} this one");
    if ahead.abs() < CLOCK_TOLERANCE_SECONDS {
        return Check::ok(name, address, found);
    }
    let remedy = "synchronise both clocks (NTP): tokens expire and revocations are kept by them";
    Check::warn(name, address, found, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the address is not reached")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("IO error: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn causes_are_the_whole_chain_once() {
        let inner = std::io::Error::from_raw_os_error(111);
        let check = Check::fail("nats", "127.0.0.1:4222", "not reached", "start it");
        let check = check.because(&Outer(Middle(inner)));
        assert_eq!(
            check.cause(),
            "the address is not reached: IO error: Connection refused (os error 111)"
        );
    }

    #[test]
    fn clock_warns_beyond_its_tolerance_both_ways() {
        assert_eq!(clock("c", "NATS", "a", 1.0).status, CheckStatus::Ok);
        let behind = clock("c", "NATS", "a", -7.25);
        assert_eq!(behind.status, CheckStatus::Warn);
        assert_eq!(behind.found, "the clock of NATS is 7.2 s behind this one");
        assert!(clock("c", "NATS", "a", 7.0).found.contains("ahead of"));
    }

    #[test]
    fn failures_come_first_in_order() {
        let mut found = [CheckStatus::Ok, CheckStatus::Fail, CheckStatus::Warn];
        found.sort_unstable();
        let worst_first = [CheckStatus::Fail, CheckStatus::Warn, CheckStatus::Ok];
        assert_eq!(found, worst_first);
    }
}
