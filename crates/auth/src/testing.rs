//! What the tests of this crate share: settings, tokens, a verifier that runs, and a server of key sets.

pub(crate) mod server;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mint::{Claims, Key};
use crate::{Settings, Verifier};

/// The present of all tests.
pub(crate) const TEST_NOW: OffsetDateTime = datetime!(2026-07-01 12:00 UTC);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// The settings of a command line.
pub(crate) fn settings(arguments: &[&str]) -> Result<Settings, clap::Error> {
    Cli::try_parse_from([&["confab"], arguments].concat()).map(|cli| cli.settings)
}

/// A verifier of tokens that [`claims`] makes, signed with `key`, which it was given as a PEM.
pub(crate) fn verifier_of(key: &Key, arguments: &[&str]) -> Verifier {
    let pem = key.public_pem().unwrap();
    let all = [
        "--jwt-public-key",
        &pem,
        "--jwt-issuer",
        "https://id,other",
        "--jwt-audience",
        "confab",
        "--jwt-tenant-optional",
    ];
    Verifier::new(&settings(&[&all, arguments].concat()).unwrap()).unwrap()
}

/// Claims that are good now.
pub(crate) fn claims() -> Claims {
    Claims {
        issuer: Some("https://id".into()),
        audience: Some("confab".into()),
        session_id: "login".into(),
        ..Claims::new("alice", TEST_NOW, time::Duration::HOUR)
    }
}

/// A verifier by a URL, with its task.
pub(crate) struct RunningVerifier {
    verifier: Arc<Verifier>,
    _tasks: JoinSet<()>,
}

impl RunningVerifier {
    pub(crate) fn start(url: &str, arguments: &[&str]) -> Self {
        let all = [
            "--jwt-jwks-url",
            url,
            "--jwt-any-issuer",
            "--jwt-any-audience",
            "--single-tenant",
        ];
        Self::of(&[&all, arguments].concat())
    }

    /// A verifier by a command line alone.
    pub(crate) fn of(arguments: &[&str]) -> Self {
        let settings = settings(arguments).unwrap();
        let verifier = Arc::new(Verifier::new(&settings).unwrap());
        let mut tasks = JoinSet::new();
        let task = Arc::clone(&verifier);
        tasks.spawn(async move { task.run(CancellationToken::new()).await });
        Self {
            verifier,
            _tasks: tasks,
        }
    }

    /// The same, once it has keys.
    pub(crate) async fn ready(url: &str, arguments: &[&str]) -> Self {
        let running = Self::start(url, arguments);
        eventually(|| running.has_keys()).await;
        running
    }
}

impl Deref for RunningVerifier {
    type Target = Verifier;
    fn deref(&self) -> &Verifier {
        &self.verifier
    }
}

/// Waits until `condition` holds; panics when it does not within 20 s.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it never came");
}
