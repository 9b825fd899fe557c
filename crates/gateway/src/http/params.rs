//! Query parameters: each taken by name, every bad one named at once, none left over in silence.

use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use confab_protocol::error::{Failure, FieldError};

use super::problem::Problem;

/// The parameters of a query string.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Params {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        Self {
            pairs,
            errors: Vec::new(),
        }
    }

    /// Takes a parameter out, as text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            self.pairs.retain(|(key, _)| key != name);
            self.reject(name, "is there twice");
            return None;
        }
        if value.contains('\0') {
            self.reject(name, "must not contain U+0000");
            return None;
        }
        Some(value)
    }

    /// Takes a parameter out; one that is no `T` is noted as what it `must` be.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, must: &str) -> Option<T> {
        let value = self.text(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.reject(name, must);
        }
        parsed
    }

    /// Takes a number out that must lie in `range`.
    pub(super) fn limit(&mut self, range: RangeInclusive<u32>, default: u32) -> u32 {
        let must = format!("must be a number from {} to {}", range.start(), range.end());
        let Some(limit) = self.parsed("limit", &must) else {
            return default;
        };
        if !range.contains(&limit) {
            self.reject("limit", &must);
        }
        limit
    }

    /// Notes that a parameter is not what it `must` be.
    pub(super) fn reject(&mut self, name: &str, must: &str) {
        self.errors.push(FieldError::new(name, must));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` that names every bad and every unknown parameter.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        for (name, _) in &self.pairs {
            let name: String = name.chars().take(64).collect();
            self.errors
                .push(FieldError::new(name, "is not a known parameter"));
        }
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::validation(self.errors))
        }
    }
}

/// A request without query parameters: a route that knows none refuses them all.
#[derive(Debug)]
pub(super) struct NoParams;

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Params::parse(parts.uri.query()).finish()?;
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_parameter_is_named() {
        let mut params = Params::parse(Some("limit=0&before=x&typo=1&sender=a&sender=b"));
        assert_eq!(params.limit(1..=100, 50), 0);
        assert_eq!(params.parsed::<u64>("before", "must be a seq"), None);
        assert_eq!(params.text("sender"), None);
        let names: Vec<_> = params
            .finish()
            .unwrap_err()
            .extension
            .errors
            .into_iter()
            .map(|e| e.pointer)
            .collect();
        assert_eq!(names, ["limit", "before", "sender", "typo"]);
    }
}
