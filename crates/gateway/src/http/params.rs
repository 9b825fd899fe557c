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

    /// Takes all parameters of a name out, as many as `count` says; ones that are no `T` are noted as what they `must` be.
    pub(super) fn list<T: FromStr>(
        &mut self,
        name: &str,
        count: RangeInclusive<usize>,
        must: &str,
    ) -> Vec<T> {
        let pairs = std::mem::take(&mut self.pairs);
        let (own, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| key == name);
        self.pairs = others;
        if !count.contains(&own.len()) {
            let must = format!("must be given {} to {} times", count.start(), count.end());
            self.reject(name, &must);
            return Vec::new();
        }
        let all = own.len();
        let own = own.into_iter().filter_map(|(_, value)| value.parse().ok());
        let own: Vec<T> = own.collect();
        if own.len() < all {
            self.reject(name, must);
        }
        own
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
    fn list_has_every_parameter_of_its_name() {
        let list = |query: &str| {
            let mut params = Params::parse(Some(query));
            let list = params.list::<u8>("n", 1..=2, "must be a number");
            let pointers = |failure: Failure| failure.extension.errors[0].pointer.clone();
            params.finish().map_err(pointers).map(|()| list)
        };
        assert_eq!(list("n=1&n=2"), Ok(vec![1, 2]));
        for (bad, pointer) in [
            ("", "n"),
            ("n=1&n=2&n=3", "n"),
            ("n=x", "n"),
            ("n=1&m=2", "m"),
        ] {
            assert_eq!(list(bad).unwrap_err(), pointer, "{bad}");
        }
    }

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
