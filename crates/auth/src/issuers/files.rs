//! The files of issuers and public keys, read again while the process runs.

use std::sync::Arc;
use std::time::Duration;

use super::{Issuer, IssuerEntry, build, written};
use crate::settings::{Settings, SettingsError};

/// Interval at which the files are read: their contents are compared, since a file that is replaced by a link may keep any time.
const READ_PERIOD: Duration = Duration::from_secs(2);

/// The memory of files that could not be used.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// What stands in them, where it can be read and yet not be used.
    refused: Option<Vec<IssuerEntry>>,
    /// What the log was told of them.
    complaint: Option<String>,
}

impl Files {
    /// Waits until the files say something else than `issuers` were made of, and gives the issuers that they say now, new key sets
    /// fetched. While the files cannot be used, what they said before stays in force, and the log says so once.
    pub(crate) async fn replaced(
        &mut self,
        settings: &Settings,
        issuers: &[Arc<Issuer>],
    ) -> Arc<[Arc<Issuer>]> {
        if !settings.name_files() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(READ_PERIOD).await;
            match self.read(settings, issuers).await {
                Ok(None) => {}
                Ok(Some(replaced)) => {
                    let known = |issuer: &&Arc<Issuer>| {
                        !issuers
                            .iter()
                            .any(|known| Arc::ptr_eq(&known.keys, &issuer.keys))
                    };
                    let new: Vec<_> = replaced.iter().filter(known).cloned().collect();
                    // Before anybody is verified by them: an issuer without keys yet would make the process not ready.
                    fetch(&new).await;
                    tracing::info!(
                        issuers = replaced.len(),
                        "the files of issuers and keys have changed, and were taken over"
                    );
                    return replaced.into();
                }
                Err(error) => self.complain(&error),
            }
        }
    }

    /// The issuers of the files, where these have changed.
    pub(super) async fn read(
        &mut self,
        settings: &Settings,
        issuers: &[Arc<Issuer>],
    ) -> Result<Option<Vec<Arc<Issuer>>>, SettingsError> {
        let of_files = settings.clone();
        let Ok(entries) = tokio::task::spawn_blocking(move || written(&of_files)).await else {
            return Ok(None);
        };
        let entries = entries?;
        if self.refused.as_ref() == Some(&entries) {
            return Ok(None);
        }
        self.refused = None;
        if issuers
            .iter()
            .map(|issuer| &issuer.entry)
            .eq(entries.iter())
        {
            self.is_usable();
            return Ok(None);
        }
        match build(entries.clone(), settings, issuers) {
            Ok(replaced) => {
                self.is_usable();
                Ok(Some(replaced))
            }
            Err(error) => {
                self.refused = Some(entries);
                Err(error)
            }
        }
    }

    fn complain(&mut self, error: &SettingsError) {
        let error: &(dyn std::error::Error + 'static) = error;
        let causes = std::iter::successors(Some(error), |error| error.source());
        let complaint: Vec<String> = causes.map(ToString::to_string).collect();
        let complaint = complaint.join(": ");
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!(
                error,
                "the files of issuers and keys cannot be used: what they said before stays in force"
            );
            self.complaint = Some(complaint);
        }
    }

    fn is_usable(&mut self) {
        if self.complaint.take().is_some() {
            tracing::info!("the files of issuers and keys can be used again");
        }
    }
}

/// Fetches the key set of each once; why one could not be fetched stands in the log.
pub(crate) async fn fetch(issuers: &[Arc<Issuer>]) {
    let fetching = issuers.iter().map(|issuer| issuer.keys.fetch());
    futures_util::future::join_all(fetching).await;
}
