//! The issuers whose tokens are taken: the one of the flags, those of a file, each with its keys and rules, none in another's way.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Algorithm;
use crate::claims::{Rules, issuer_of};
use crate::error::Defect;
use crate::keys::Keys;
use crate::settings::{IssuerError, IssuerSettings, Settings, SettingsError, Source, is_pem};

mod files;

pub(crate) use files::{Files, fetch};

/// An issuer with its keys and what its tokens must be like.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// Which it is, in words for people.
    pub(crate) name: String,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) rules: Rules,
    shares_tenants: bool,
    /// What it was made of.
    entry: IssuerEntry,
}

/// An issuer as settings and files have it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IssuerEntry {
    name: String,
    settings: IssuerSettings,
    /// The public key, be it given or read from a file; empty where there is a key set instead.
    pem: String,
}

/// The file of issuers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    issuer: Vec<IssuerSettings>,
}

/// All issuers of `settings`, by what the files say now: at least one.
///
/// # Errors
/// What is wrong with one of them, or between two.
pub(crate) fn read(settings: &Settings) -> Result<Vec<Arc<Issuer>>, SettingsError> {
    build(written(settings)?, settings, &[])
}

/// Returns what settings and files say: at least one.
///
/// # Errors
/// When a file cannot be read, or is none of issuers.
fn written(settings: &Settings) -> Result<Vec<IssuerEntry>, SettingsError> {
    let mut written = Vec::new();
    if settings.issuers.is_none() || !settings.flags.is_unset() {
        let mut flags = settings.flags.clone();
        let says_tenants =
            flags.single_tenant || flags.tenant.is_some() || !flags.tenants.is_empty();
        if !says_tenants && flags.tenant_prefix.is_none() {
            // The issuer of the flags was the only one for long, and speaks for all tenants unless told otherwise.
            flags.tenant_prefix = Some(String::new());
        }
        written.push(IssuerEntry::new(
            "the issuer of the flags --jwt-…".to_owned(),
            flags,
        )?);
    }
    if let Some(path) = &settings.issuers {
        for (number, entry) in entries(path)?.into_iter().enumerate() {
            let iss = entry
                .issuer
                .first()
                .map_or("without an issuer", String::as_str);
            let name = format!("issuer {} of {} ({iss})", number + 1, path.display());
            written.push(IssuerEntry::new(name, entry)?);
        }
    }
    Ok(written)
}

/// The issuers of `written`. Of those that are `known`, one whose entry is the same stays, and so does the key set of the same URL.
///
/// # Errors
/// What is wrong with one of them, or between two.
fn build(
    written: Vec<IssuerEntry>,
    settings: &Settings,
    known: &[Arc<Issuer>],
) -> Result<Vec<Arc<Issuer>>, SettingsError> {
    let issuer = |entry: IssuerEntry| match known.iter().find(|issuer| issuer.entry == entry) {
        Some(same) => Ok(Arc::clone(same)),
        None => Issuer::new(entry, settings, known).map(Arc::new),
    };
    let issuers = written
        .into_iter()
        .map(issuer)
        .collect::<Result<Vec<_>, _>>()?;
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

impl IssuerEntry {
    fn new(name: String, settings: IssuerSettings) -> Result<Self, SettingsError> {
        let pem = match settings.source() {
            Ok(Source::Key(text)) => pem(text),
            Ok(Source::Url(_)) => Ok(String::new()),
            Err(error) => Err(error),
        };
        match pem {
            Ok(pem) => Ok(Self {
                name,
                settings,
                pem,
            }),
            Err(error) => Err(SettingsError::Issuer {
                issuer: name,
                error,
            }),
        }
    }
}

/// The PEM that a setting is, or that stands in the file that it names.
fn pem(text: &str) -> Result<String, IssuerError> {
    match is_pem(text) {
        true => Ok(text.to_owned()),
        false => std::fs::read_to_string(text).map_err(IssuerError::KeyFile),
    }
}

impl Issuer {
    fn new(
        entry: IssuerEntry,
        settings: &Settings,
        known: &[Arc<Self>],
    ) -> Result<Self, SettingsError> {
        let url = &entry.settings.jwks_url;
        let same_set = known
            .iter()
            .find(|issuer| url.is_some() && issuer.entry.settings.jwks_url == *url)
            .map(|issuer| Arc::clone(&issuer.keys));
        let read = || {
            let rules = entry.settings.rules(settings)?;
            let keys = match same_set {
                Some(keys) => keys,
                None => Arc::new(Keys::new(
                    &entry.name,
                    &entry.settings,
                    &entry.pem,
                    settings.pace(),
                )?),
            };
            Ok((keys, rules))
        };
        let (keys, rules) = read().map_err(|error| SettingsError::Issuer {
            issuer: entry.name.clone(),
            error,
        })?;
        Ok(Self {
            name: entry.name.clone(),
            algorithms: entry.settings.algorithms.clone(),
            keys,
            rules,
            shares_tenants: entry.settings.share_tenants,
            entry,
        })
    }

    fn names(&self) -> &[String] {
        self.rules.issuers.as_deref().unwrap_or_default()
    }
}

/// Checks that of any two issuers each has names of its own, and tenants of its own unless both share them.
fn check_apart(issuers: &[Arc<Issuer>]) -> Result<(), SettingsError> {
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
    issuers: &'a [Arc<Issuer>],
    claims: &Map<String, Value>,
) -> Result<&'a Issuer, Defect> {
    let iss = issuer_of(claims)?;
    issuers
        .iter()
        .map(Arc::as_ref)
        .find(|issuer| issuer.names().iter().any(|name| name == iss))
        .ok_or(Defect::Issuer)
}

#[cfg(test)]
mod tests;
