//! A set of keys (RFC 7517 section 5): which of them are used, and which one is meant.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::key::{Jwk, KeyRefused, VerificationKey};
use crate::algorithm::Algorithm;
use crate::error::Defect;

/// Why a key set is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetRefused {
    /// Not the JSON of a key set.
    #[error("not a key set")]
    Broken(#[source] serde_json::Error),
    /// None of its keys is of use.
    #[error("no key of use among {0}")]
    Empty(usize),
    /// Two keys with one id for one algorithm, or two without any: which is meant would be a guess.
    #[error("ambiguous: two keys {0:?}")]
    Ambiguous(String),
}

/// The keys of a set that are of use: at least one, each alone with its id, or without one, for its algorithm. Keys of one id for
/// different algorithms are told apart by these (RFC 7517 section 4.5).
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    /// True if this is one key that was given without any id, for tokens with whatever `kid`.
    given: bool,
}

#[derive(Deserialize)]
struct SetDocument<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// The set of one key that was given as it is.
    pub(crate) fn given(key: VerificationKey) -> Self {
        Self {
            keys: vec![Arc::new(key)],
            given: true,
        }
    }

    /// Reads a set. Keys that are not of use are left out (RFC 7517 section 5), and said so in the log.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, SetRefused> {
        let document: SetDocument<'_> = serde_json::from_slice(json).map_err(SetRefused::Broken)?;
        let keys: Vec<_> = document
            .keys
            .iter()
            .filter_map(|jwk| read(jwk.get()))
            .collect();
        if keys.is_empty() {
            return Err(SetRefused::Empty(document.keys.len()));
        }
        check_distinct(&keys)?;
        Ok(Self { keys, given: false })
    }

    /// Returns the number of usable keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The algorithms of its keys, each once.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for key in &self.keys {
            if !algorithms.contains(&key.algorithm()) {
                algorithms.push(key.algorithm());
            }
        }
        algorithms
    }

    /// The key that a token with this header means.
    pub(crate) fn find(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, Defect> {
        let Some(_) = key_id.filter(|_| !self.given) else {
            return self.only(algorithm).map(Arc::clone);
        };
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.key_id() == key_id)
            .peekable();
        if named.peek().is_none() {
            return Err(Defect::UnknownKey);
        }
        named
            .find(|key| key.algorithm() == algorithm)
            .map(Arc::clone)
            .ok_or(Defect::NotTheKeysAlgorithm)
    }

    /// The only key for `algorithm`.
    fn only(&self, algorithm: Algorithm) -> Result<&Arc<VerificationKey>, Defect> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm() == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Defect::NotTheKeysAlgorithm),
            (Some(_), Some(_)) => Err(Defect::AmbiguousKey),
        }
    }
}

fn read(jwk: &str) -> Option<Arc<VerificationKey>> {
    let key = serde_json::from_str::<Jwk>(jwk)
        .map_err(|_json| KeyRefused::Broken)
        .and_then(VerificationKey::from_jwk);
    match key {
        Ok(key) => Some(Arc::new(key)),
        // keys for encryption are as usual in a set as keys for signatures
        Err(KeyRefused::Use) => None,
        Err(reason) => {
            let key_id = serde_json::from_str::<Value>(jwk).ok();
            let key_id = key_id.as_ref().and_then(|jwk| jwk.get("kid")?.as_str());
            tracing::warn!(kid = key_id, %reason, "a key of the key set is not used");
            None
        }
    }
}

fn check_distinct(keys: &[Arc<VerificationKey>]) -> Result<(), SetRefused> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert((key.key_id(), key.algorithm())) {
            let name = key
                .key_id()
                .map_or_else(|| format!("for {}", key.algorithm()), str::to_owned);
            return Err(SetRefused::Ambiguous(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
