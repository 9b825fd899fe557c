//! What the coordinator tells presence of sessions. It never waits for that, and what waits is bounded by the sessions that there are: of
//! one that came and went meanwhile nothing is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use confab_protocol::signal::PresenceStatus;
use tokio::sync::Notify;

use crate::account::{Account, SessionKey};

/// What presence has not heard yet of sessions.
#[derive(Debug, Default)]
pub(super) struct SessionChanges {
    news: Mutex<BTreeMap<SessionKey, SessionChange>>,
    come: Notify,
}

/// What became of a session.
#[derive(Debug)]
pub(super) enum SessionChange {
    /// It is open, and says this of its user.
    Opened(Arc<Account>, PresenceStatus),
    /// It ended.
    Closed,
}

impl SessionChanges {
    /// A session is open, and says this of its user.
    pub(super) fn opened(&self, key: SessionKey, account: Arc<Account>, status: PresenceStatus) {
        self.lock()
            .insert(key, SessionChange::Opened(account, status));
        self.come.notify_one();
    }

    /// A session ended.
    pub(super) fn closed(&self, key: SessionKey) {
        let mut news = self.lock();
        if news.remove(&key).is_none() {
            news.insert(key, SessionChange::Closed);
        }
        drop(news);
        self.come.notify_one();
    }

    /// Takes all that there is, the oldest session first.
    pub(super) fn take(&self) -> BTreeMap<SessionKey, SessionChange> {
        std::mem::take(&mut self.lock())
    }

    /// Comes when there may be something to take. Cancel-safe.
    pub(super) async fn come(&self) {
        self.come.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, SessionChange>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_came_and_went_leaves_nothing() {
        let account = Arc::new(Account {
            tenant: "t".parse().unwrap(),
            user: "ann".parse().unwrap(),
        });
        let news = SessionChanges::default();
        let open = |key| news.opened(key, Arc::clone(&account), PresenceStatus::Online);
        open(SessionKey(0));
        assert_eq!(news.take().len(), 1);
        for n in 1..=10_000 {
            open(SessionKey(n));
            news.closed(SessionKey(n));
        }
        news.closed(SessionKey(0));
        let left: Vec<_> = news.take().into_iter().collect();
        assert!(matches!(
            left.as_slice(),
            [(SessionKey(0), SessionChange::Closed)]
        ));
    }
}
