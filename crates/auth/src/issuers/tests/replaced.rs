//! Files of issuers and keys that change while the process runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::mint::jwks;
use crate::testing::RunningVerifier;
use crate::testing::server::{KeyServer, ServerAnswer};

/// A folder with a file of issuers in it.
struct Folder(TempDir);

impl Folder {
    fn new(issuers: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("issuers.toml", issuers);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As secret stores do it: another file in its place.
    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.path(name)).unwrap();
    }

    fn run(&self) -> RunningVerifier {
        RunningVerifier::of(&["--jwt-issuers", self.path("issuers.toml").to_str().unwrap()])
    }
}

fn entry(iss: &str, tenant: &str, key: &Path) -> String {
    format!(
        "[[issuer]]\nissuer = '{iss}'\npublic-key = '{}'\naudience = 'confab'\ntenant = '{tenant}'\n",
        key.display()
    )
}

fn remote(iss: &str, tenant: &str, url: &str) -> String {
    format!(
        "[[issuer]]\nissuer = '{iss}'\njwks-url = '{url}'\naudience = 'confab'\ntenant = '{tenant}'\n"
    )
}

async fn verify(running: &RunningVerifier, key: &Key, iss: &str) -> Result<Caller, AuthError> {
    let token = key.mint(&of(iss, json!({}))).unwrap();
    running.verify(&token, TEST_NOW).await
}

/// Waits until tokens of `iss` by `key` are taken.
async fn taken(running: &RunningVerifier, key: &Key, iss: &str) {
    let wait = async {
        while verify(running, key, iss).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let taken = tokio::time::timeout(Duration::from_secs(20), wait).await;
    taken.unwrap_or_else(|_late| panic!("tokens of {iss} were never taken"));
}

#[tokio::test]
async fn replaced_key_file_is_taken_over() {
    let folder = Folder::new("");
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    folder.write("key.pem", &old.public_pem().unwrap());
    folder.write(
        "issuers.toml",
        &entry("https://one", "one", &folder.path("key.pem")),
    );
    let running = folder.run();
    verify(&running, &old, "https://one").await.unwrap();
    folder.write("key.pem", &new.public_pem().unwrap());
    taken(&running, &new, "https://one").await;
    let refused = verify(&running, &old, "https://one").await;
    assert_eq!(refused, Err(Defect::Signature.into()));
}

#[tokio::test]
async fn key_file_of_flags_is_taken_over() {
    let folder = Folder::new("");
    let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
    folder.write("key.pem", &old.public_pem().unwrap());
    let running = RunningVerifier::of(&[
        "--jwt-public-key",
        folder.path("key.pem").to_str().unwrap(),
        "--jwt-any-issuer",
        "--jwt-any-audience",
        "--single-tenant",
    ]);
    verify(&running, &old, "https://any").await.unwrap();
    folder.write("key.pem", &new.public_pem().unwrap());
    taken(&running, &new, "https://any").await;
}

#[tokio::test]
async fn broken_file_leaves_issuers_as_they_were() {
    let folder = Folder::new("");
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    folder.write("one.pem", &one.public_pem().unwrap());
    folder.write("two.pem", &two.public_pem().unwrap());
    let entry = |iss, tenant, key| entry(iss, tenant, &folder.path(key));
    let first = entry("https://one", "one", "one.pem");
    folder.write("issuers.toml", &first);
    let running = folder.run();
    // Neither TOML, nor issuers that may stand beside each other, nor keys that are there.
    for broken in [
        "[[issuer".to_owned(),
        String::new(),
        format!("{first}{}", entry("https://two", "one", "two.pem")),
        format!("{first}{}", entry("https://two", "two", "three.pem")),
    ] {
        folder.write("issuers.toml", &broken);
        let mut files = Files::default();
        let issuers = running.issuers();
        let path = folder.path("issuers.toml");
        let settings = settings(&["--jwt-issuers", path.to_str().unwrap()]).unwrap();
        files.read(&settings, &issuers).await.unwrap_err();
        verify(&running, &one, "https://one").await.unwrap();
    }
    let both = format!("{first}{}", entry("https://two", "two", "two.pem"));
    folder.write("issuers.toml", &both);
    taken(&running, &two, "https://two").await;
    verify(&running, &one, "https://one").await.unwrap();
}

#[tokio::test]
async fn key_set_survives_changes_of_its_file() {
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    let first = KeyServer::start(ServerAnswer::Body(jwks([&one]))).await;
    let second = KeyServer::start(ServerAnswer::Body(jwks([&two]))).await;
    let entry = remote("https://one", "one", &first.url);
    let folder = Folder::new(&entry);
    let running = folder.run();
    taken(&running, &one, "https://one").await;
    // The set of the first cannot be fetched when the second comes, nor is it asked for before tokens of the second are taken.
    first.answer(ServerAnswer::Body("gone".to_owned()));
    let both = format!("{}{entry}", remote("https://two", "two", &second.url));
    folder.write("issuers.toml", &both);
    taken(&running, &two, "https://two").await;
    assert!(running.has_keys());
    verify(&running, &one, "https://one").await.unwrap();
    folder.write("issuers.toml", &remote("https://two", "two", &second.url));
    let removed = async {
        while verify(&running, &one, "https://one").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let removed = tokio::time::timeout(Duration::from_secs(20), removed).await;
    removed.expect("the first issuer to go");
}
