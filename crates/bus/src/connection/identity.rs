//! As whom the process connects to NATS: what was given, and files that are read again for each connection.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ServerAddr};
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;

use super::settings::{AuthSettings, Settings};
use crate::error::BusError;

/// The servers of the settings, without what stands before their hosts, and as whom to connect to each of them.
#[derive(Clone)]
pub(super) struct ServerAddress {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) identity: Identity,
}

/// One way of saying who connects.
#[derive(Clone, PartialEq)]
pub(super) enum Identity {
    Anonymous,
    User { name: Secret, password: Secret },
    Token(Secret),
    Nkey(PathBuf),
    Credentials(PathBuf),
}

/// A text that was given, or that stands in a file.
#[derive(Clone, PartialEq)]
pub(super) enum Secret {
    Given(String),
    File(PathBuf),
}

/// A defect of a secret. It reveals nothing of the file's contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    #[error("{} is not {what}", .path.display())]
    Malformed { path: PathBuf, what: &'static str },
}

const CREDENTIALS_KIND: &str = "a credentials file with a user's JWT and the seed of its nkey";
const SEED_KIND: &str = "the seed of a user's nkey";

impl ServerAddress {
    /// Returns where and as whom `settings` say to connect.
    ///
    /// # Errors
    /// When a URL cannot be used, when they name several ways of authentication, or half of one.
    pub(super) fn of(settings: &Settings) -> Result<Self, BusError> {
        let mut servers = Vec::new();
        let mut in_urls: Vec<Identity> = Vec::new();
        for url in &settings.nats_url {
            let (server, identity) = server(url)?;
            servers.push(server);
            in_urls.extend(identity.filter(|identity| !in_urls.contains(identity)));
        }
        let given = given(&settings.auth)?;
        let mut all = in_urls.into_iter().chain(given);
        let identity = all.next().unwrap_or(Identity::Anonymous);
        if all.next().is_some() {
            return Err(BusError::Settings(
                "set one way of authentication: the same user or token in every CONFAB_NATS_URL, or CONFAB_NATS_USER and _PASSWORD, \
                 CONFAB_NATS_TOKEN, CONFAB_NATS_NKEY or CONFAB_NATS_CREDENTIALS"
                    .to_owned(),
            ));
        }
        Ok(Self { servers, identity })
    }
}

/// A server, and who stands before its host. The library heeds neither user nor password of a URL, and logs it whole.
fn server(url: &str) -> Result<(ServerAddr, Option<Identity>), BusError> {
    let refused = |why: &str| BusError::Settings(format!("CONFAB_NATS_URL: {why}"));
    let server: ServerAddr = url
        .trim()
        .parse()
        .map_err(|error: std::io::Error| refused(&error.to_string()))?;
    if server.is_websocket() {
        return Err(refused(
            "NATS over WebSocket is not supported: use nats:// or tls://",
        ));
    }
    let mut bare = server.into_inner();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = Some(bare.username())
        .filter(|name| !name.is_empty())
        .map(decoded);
    let identity = match (name, bare.password().map(decoded)) {
        (Some(name), Some(password)) => Some(Identity::User {
            name: Secret::Given(name),
            password: Secret::Given(password),
        }),
        (Some(token), None) => Some(Identity::Token(Secret::Given(token))),
        (None, Some(_password)) => return Err(refused("a password without a user")),
        (None, None) => None,
    };
    let is_bare = bare.set_username("").is_ok() && bare.set_password(None).is_ok();
    let server = ServerAddr::from_url(bare).map_err(|error| refused(&error.to_string()))?;
    match is_bare && !server.host().is_empty() {
        true => Ok((server, identity)),
        false => Err(refused("a URL has no host")),
    }
}

/// Returns what the flags say: each way that they name.
fn given(settings: &AuthSettings) -> Result<Vec<Identity>, BusError> {
    let one_of = |text: &Option<String>, file: &Option<PathBuf>, what: &str| match (text, file) {
        (Some(_), Some(_)) => Err(BusError::Settings(format!(
            "set either {what} or {what}_FILE, and not both"
        ))),
        (Some(text), None) => Ok(Some(Secret::Given(text.clone()))),
        (None, file) => Ok(file.clone().map(Secret::File)),
    };
    let name = one_of(
        &settings.nats_user,
        &settings.nats_user_file,
        "CONFAB_NATS_USER",
    )?;
    let password = one_of(
        &settings.nats_password,
        &settings.nats_password_file,
        "CONFAB_NATS_PASSWORD",
    )?;
    let token = one_of(
        &settings.nats_token,
        &settings.nats_token_file,
        "CONFAB_NATS_TOKEN",
    )?;
    let user = match (name, password) {
        (Some(name), Some(password)) => Some(Identity::User { name, password }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(BusError::Settings(
                "CONFAB_NATS_USER and CONFAB_NATS_PASSWORD (or their _FILE) need each other"
                    .to_owned(),
            ));
        }
    };
    let nkey = settings.nats_nkey.clone().map(Identity::Nkey);
    let credentials = settings.nats_credentials.clone();
    let ways = [
        user,
        token.map(Identity::Token),
        nkey,
        credentials.map(Identity::Credentials),
    ];
    Ok(ways.into_iter().flatten().collect())
}

impl Identity {
    /// The answer to the server's `nonce`, by what the files say now.
    pub(super) async fn answer(self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        self.read(&nonce).await.map_err(AuthError::new)
    }

    /// The same, with what is wrong.
    ///
    /// # Errors
    /// [`SecretError`].
    pub(super) async fn read(&self, nonce: &[u8]) -> Result<Auth, SecretError> {
        let mut auth = Auth::new();
        match self {
            Self::Anonymous => {}
            Self::User { name, password } => {
                auth.username = Some(name.read().await?);
                auth.password = Some(password.read().await?);
            }
            Self::Token(token) => auth.token = Some(token.read().await?),
            Self::Nkey(path) => {
                let pair = key_pair(path, line(path).await?.trim(), SEED_KIND)?;
                auth.signature = Some(sign(path, &pair, nonce, SEED_KIND)?);
                auth.nkey = Some(pair.public_key());
            }
            Self::Credentials(path) => {
                let text = contents(path).await?;
                let block = |label| block(path, &text, label);
                let pair = key_pair(path, block("USER NKEY SEED")?, CREDENTIALS_KIND)?;
                auth.signature = Some(sign(path, &pair, nonce, CREDENTIALS_KIND)?);
                auth.jwt = Some(block("NATS USER JWT")?.to_owned());
            }
        }
        Ok(auth)
    }
}

impl Secret {
    async fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Given(text) => Ok(text.clone()),
            Self::File(path) => line(path).await,
        }
    }
}

/// A file's text without the line's end behind it, which editors and secret stores put there; blanks may be of the secret.
async fn line(path: &Path) -> Result<String, SecretError> {
    let text = contents(path).await?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.is_empty() {
        true => Err(SecretError::Empty(path.to_owned())),
        false => Ok(line.to_owned()),
    }
}

async fn contents(path: &Path) -> Result<String, SecretError> {
    let read = tokio::fs::read_to_string(path).await;
    read.map_err(|error| SecretError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

/// Returns what stands between the marks of a credentials file: the line behind the one that begins the part `label`.
fn block<'a>(path: &Path, text: &'a str, label: &str) -> Result<&'a str, SecretError> {
    let begins = |line: &str| {
        let mark = line.trim_matches('-');
        mark.strip_prefix("BEGIN ").is_some_and(|of| of == label)
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| begins(line));
    lines
        .next()
        .filter(|line| !line.starts_with('-'))
        .ok_or_else(|| SecretError::Malformed {
            path: path.to_owned(),
            what: CREDENTIALS_KIND,
        })
}

fn key_pair(path: &Path, seed: &str, what: &'static str) -> Result<KeyPair, SecretError> {
    KeyPair::from_seed(seed).map_err(|_secret| SecretError::Malformed {
        path: path.to_owned(),
        what,
    })
}

fn sign(
    path: &Path,
    pair: &KeyPair,
    nonce: &[u8],
    what: &'static str,
) -> Result<Vec<u8>, SecretError> {
    pair.sign(nonce).map_err(|_secret| SecretError::Malformed {
        path: path.to_owned(),
        what,
    })
}
