//! The keys in use: one that was given, or a set from a URL that is fetched again and again, the last good one kept.

mod check;
mod fetch;
mod key;
mod set;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::condition::{Condition, Monitor};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::algorithm::Algorithm;
use crate::error::{AuthError, Defect};
use crate::settings::{FetchPace, IssuerError, IssuerSettings, Source};
use fetch::Remote;
pub(crate) use key::KeyRefused;
use key::VerificationKey;
use set::KeySet;

/// The wait after the first of several failures; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The key set of an issuer.
pub(crate) const KEY_SET: Condition = Condition {
    name: "key_set",
    fails: "the key set could not be fetched",
    holds: "the key set is fetched again",
    remedy: "see that --jwt-jwks-url is the issuer's key set and answers this process; until then keys that it had stay in use, and \
        where it never had any all of the issuer's tokens are refused",
    patience: Duration::ZERO,
};

/// The keys in use. Only [`Keys::run`] fetches: one fetch at a time, which no caller who goes away can break off.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Whose they are, for the log.
    issuer: String,
    fetching: Monitor,
    remote: Option<Remote>,
    pace: FetchPace,
    state: watch::Sender<KeysState>,
    asked: Mutex<FetchRequests>,
    wanted: Notify,
}

/// The result of the last fetches.
#[derive(Debug, Default)]
struct KeysState {
    /// The last good set.
    set: Option<Arc<KeySet>>,
    /// The number of the last [`FetchRequests`] that a fetch has answered, be it with a failure.
    answered: u64,
    /// True if any fetch has ended, be it with a failure.
    were_asked_for: bool,
}

/// The callers' requests for another fetch, by number.
#[derive(Debug, Default)]
struct FetchRequests {
    number: u64,
    at: Option<Instant>,
}

impl FetchRequests {
    /// The number to wait for: that of a request on the way, or of a new one; none where the last is not long enough ago.
    fn ask(&mut self, answered: u64, now: Instant, interval: Duration) -> Option<u64> {
        if self.number > answered {
            return Some(self.number);
        }
        if self
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < interval)
        {
            return None;
        }
        self.number += 1;
        self.at = Some(now);
        Some(self.number)
    }
}

impl Keys {
    /// The keys that `settings` name for `issuer`: the public key `pem`, or a key set, which [`Self::run`] fetches.
    pub(crate) fn new(
        issuer: &str,
        settings: &IssuerSettings,
        pem: &str,
        pace: FetchPace,
    ) -> Result<Self, IssuerError> {
        let (remote, set) = match settings.source()? {
            Source::Url(url) => (Some(Remote::new(url, pace.timeout)?), None),
            Source::Key(_) => (None, Some(Arc::new(given(settings, pem)?))),
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            fetching: Monitor::about(KEY_SET, issuer.to_owned()),
            remote,
            pace,
            state: watch::Sender::new(KeysState {
                set,
                answered: 0,
                were_asked_for: false,
            }),
            asked: Mutex::default(),
            wanted: Notify::new(),
        })
    }

    /// The set in use.
    pub(crate) fn current(&self) -> Result<Arc<KeySet>, AuthError> {
        self.state
            .borrow()
            .set
            .clone()
            .ok_or(AuthError::Unavailable)
    }

    /// Returns true if nothing more is to be known by waiting: a fetch has ended, or none is needed.
    pub(crate) fn were_asked_for(&self) -> bool {
        self.remote.is_none() || self.state.borrow().were_asked_for
    }

    /// Fetches the set once, where there is one to fetch.
    pub(crate) async fn fetch(&self) {
        if let Some(remote) = &self.remote {
            self.refresh(remote).await;
        }
    }

    /// The key that a token with this header is to be verified with. An unknown `kid` may mean that the issuer has new keys: then
    /// the set is fetched again, and waited for.
    pub(crate) async fn find(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, AuthError> {
        let found = self.current()?.find(key_id, algorithm);
        let unknown = matches!(found, Err(Defect::UnknownKey));
        if !unknown || !self.fetched_again().await {
            return Ok(found?);
        }
        Ok(self.current()?.find(key_id, algorithm)?)
    }

    /// Returns true if a fetch that began after this call has ended; false where the interval forbids one, or it takes too long.
    async fn fetched_again(&self) -> bool {
        let mut state = self.state.subscribe();
        let answered = state.borrow().answered;
        let number = self
            .asked()
            .ask(answered, Instant::now(), self.pace.interval);
        let Some(number) = number else { return false };
        self.wanted.notify_one();
        let answer = state.wait_for(|state| state.answered >= number);
        matches!(
            tokio::time::timeout(self.pace.timeout, answer).await,
            Ok(Ok(_))
        )
    }

    /// Fetches the set at once, at its maximum age, and when asked for, and never ends; where there is none to fetch it does nothing. After
    /// a failure it tries again sooner. Cancel-safe: whoever waits for a fetch that was broken off is answered by the next run's first.
    pub(crate) async fn run(&self) {
        let Some(remote) = &self.remote else {
            return std::future::pending().await;
        };
        let mut failures = 0;
        loop {
            failures = if self.refresh(remote).await {
                0
            } else {
                failures + 1
            };
            let pause = tokio::time::sleep(pause(failures, self.pace));
            tokio::select! {
                () = pause => {}
                () = self.asked_for() => {}
            }
        }
    }

    /// One fetch; whether it gave a good set.
    async fn refresh(&self, remote: &Remote) -> bool {
        let answered = self.asked().number;
        let fetched = remote.fetch().await;
        let good = fetched.is_ok();
        match &fetched {
            Ok(set) => {
                self.fetching.holds();
                tracing::debug!(issuer = self.issuer, keys = set.len(), "key set fetched");
            }
            Err(error) if self.current().is_ok() => {
                let error = chain(error);
                let kept = format_args!("{error}; the keys fetched before stay in use");
                self.fetching.failed_for(&kept);
            }
            Err(error) => self.fetching.failed(error),
        }
        self.state.send_modify(|state| {
            state.answered = answered;
            state.were_asked_for = true;
            if let Ok(set) = fetched {
                state.set = Some(Arc::new(set));
            }
        });
        good
    }

    /// Ends when a request waits that no fetch has answered.
    async fn asked_for(&self) {
        loop {
            self.wanted.notified().await;
            if self.asked().number > self.state.borrow().answered {
                return;
            }
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, FetchRequests> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time to the next fetch after so many `failures` in a row.
fn pause(failures: u32, pace: FetchPace) -> Duration {
    match failures.checked_sub(1) {
        None => pace.max_age,
        Some(doublings) => FIRST_RETRY
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(pace.interval)
            .min(pace.max_age),
    }
}

/// The set of the one key `pem`, which must be for an algorithm of the settings.
fn given(settings: &IssuerSettings, pem: &str) -> Result<KeySet, IssuerError> {
    let key = VerificationKey::from_pem(pem).map_err(IssuerError::Key)?;
    if !settings.algorithms.contains(&key.algorithm()) {
        return Err(IssuerError::KeyAlgorithm(key.algorithm()));
    }
    Ok(KeySet::given(key))
}

#[cfg(test)]
mod tests;
