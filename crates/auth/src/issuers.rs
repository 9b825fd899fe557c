//! The issuers whose tokens are taken: the one of the flags, those of a file, each with its keys and rules, none in another's way.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Algorithm;
use crate::claims::{Rules, issuer_of};
use crate::error::Defect;
use crate::keys::Keys;
use crate::settings::{IssuerError, IssuerSettings, Settings, SettingsError};

/// An issuer with its keys and what its tokens must be like.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// Which it is, in words for people.
    pub(crate) name: String,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: Keys,
    pub(crate) rules: Rules,
    shares_tenants: bool,
}

/// The file of issuers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    issuer: Vec<IssuerSettings>,
}

/// All issuers of `settings`: at least one.
///
/// # Errors
/// What is wrong with one of them, or between two.
pub(crate) fn read(settings: &Settings) -> Result<Vec<Issuer>, SettingsError> {
    let mut issuers = Vec::new();
    if settings.issuers.is_none() || !settings.flags.is_unset() {
        let mut flags = settings.flags.clone();
        let says_tenants =
            flags.single_tenant || flags.tenant.is_some() || !flags.tenants.is_empty();
        if !says_tenants && flags.tenant_prefix.is_none() {
            // The issuer of the flags was the only one for long, and speaks for all tenants unless told otherwise.
            flags.tenant_prefix = Some(String::new());
        }
        issuers.push(Issuer::new(
            "the issuer of the flags --jwt-…".to_owned(),
            &flags,
            settings,
        )?);
    }
    if let Some(path) = &settings.issuers {
        for (number, entry) in entries(path)?.iter().enumerate() {
            let iss = entry
                .issuer
                .first()
                .map_or("without an issuer", String::as_str);
            let name = format!("issuer {} of {} ({iss})", number + 1, path.display());
            issuers.push(Issuer::new(name, entry, settings)?);
        }
    }
    check_apart(&issuers)?;
    Ok(issuers)
}

fn entries(path: &Path) -> Result<Vec<IssuerSettings>, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SettingsError::File(path.to_owned(), error))?;
    let document: Document = toml::from_str(&text)
        .map_err(|error| SettingsError::Toml(path.to_owned(), Box::new(error)))?;
    match document.issuer.is_empty() {
        true => Err(SettingsError::NoIssuer(path.to_owned())),
        false => Ok(document.issuer),
    }
}

impl Issuer {
    fn new(
        name: String,
        entry: &IssuerSettings,
        settings: &Settings,
    ) -> Result<Self, SettingsError> {
        let read = || {
            entry.source()?;
            let rules = entry.rules(settings)?;
            Ok((Keys::new(&name, entry, settings.pace())?, rules))
        };
        let (keys, rules) = read().map_err(|error| SettingsError::Issuer {
            issuer: name.clone(),
            error,
        })?;
        Ok(Self {
            algorithms: entry.algorithms.clone(),
            keys,
            rules,
            shares_tenants: entry.share_tenants,
            name,
        })
    }

    fn names(&self) -> &[String] {
        self.rules.issuers.as_deref().unwrap_or_default()
    }
}

/// Checks that of any two issuers each has names of its own, and tenants of its own unless both share them.
fn check_apart(issuers: &[Issuer]) -> Result<(), SettingsError> {
    for (position, two) in issuers.iter().enumerate() {
        if issuers.len() > 1 && two.rules.issuers.is_none() {
            return Err(SettingsError::Issuer {
                issuer: two.name.clone(),
                error: IssuerError::AnyIssuerOfSeveral,
            });
        }
        for one in issuers.iter().take(position) {
            let both = || (one.name.clone(), two.name.clone());
            if let Some(issuer) = two.names().iter().find(|name| one.names().contains(name)) {
                let (one, two) = both();
                let issuer = issuer.clone();
                return Err(SettingsError::SameIssuer { one, two, issuer });
            }
            let shared = one
                .rules
                .tenant
                .allowed
                .shared_with(&two.rules.tenant.allowed);
            if let Some(tenant) = shared
                && !(one.shares_tenants && two.shares_tenants)
            {
                let (one, two) = both();
                return Err(SettingsError::SharedTenant { one, two, tenant });
            }
        }
    }
    Ok(())
}

/// The issuer that a token's claims name, before any of them is believed.
///
/// # Errors
/// Where they name none of `issuers`.
pub(crate) fn named<'a>(
    issuers: &'a [Issuer],
    claims: &Map<String, Value>,
) -> Result<&'a Issuer, Defect> {
    let iss = issuer_of(claims)?;
    issuers
        .iter()
        .find(|issuer| issuer.names().iter().any(|name| name == iss))
        .ok_or(Defect::Issuer)
}

#[cfg(test)]
mod tests;
