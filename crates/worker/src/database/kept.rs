//! Connections that few use, again and again, and that therefore hardly ever go back to their pool.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use super::acquire;

/// How long a connection is kept, and how long one that nobody uses: what stands between a worker and Postgres may have dropped it without
/// a word, and after a switch of servers it may lead to the old one.
const LIFE: Duration = Duration::from_secs(1800);
const IDLE: Duration = Duration::from_secs(300);

/// Connections that are kept by whoever used them last. What goes back to its pool is asked first whether it lives: a round trip and a
/// task behind every commit, which at 1,000 sends/s is one for each send.
///
/// No more may be used at once than the pool has: nobody is told when a kept one is free again.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pool: PgPool,
    life: Duration,
    idle: Duration,
    free: Arc<Mutex<Vec<(Lent, Instant)>>>,
}

/// A connection on loan. Dropped, it goes back to its pool, which looks after it.
#[derive(Debug)]
pub(crate) struct Lent {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Kept {
    /// None is open yet.
    pub(crate) fn of(pool: PgPool) -> Self {
        Self {
            pool,
            life: LIFE,
            idle: IDLE,
            free: Arc::default(),
        }
    }

    /// A free connection, or a new one.
    ///
    /// # Errors
    /// As [`acquire`].
    pub(crate) async fn acquire(&self) -> Result<Lent, sqlx::Error> {
        if let Some(lent) = self.take(Instant::now()) {
            return Ok(lent);
        }
        let connection = acquire(&self.pool).await?;
        let since = Instant::now();
        Ok(Lent { connection, since })
    }

    /// The one that was used last, if it is good still: the others were idle for longer.
    fn take(&self, now: Instant) -> Option<Lent> {
        let mut free = self.free();
        free.retain(|(lent, used)| {
            now.duration_since(lent.since) < self.life && now.duration_since(*used) < self.idle
        });
        free.pop().map(|(lent, _)| lent)
    }

    /// Keeps a connection on which nothing is left undone. Any other is to be dropped.
    pub(crate) fn keep(&self, lent: Lent) {
        let mut free = self.free();
        if !self.pool.is_closed() {
            free.push((lent, Instant::now()));
        }
    }

    /// Closes all; waits for those that are used.
    pub(crate) async fn close(&self) {
        // From its call on the pool is closed, so that nothing is kept behind the clearing.
        let closing = self.pool.close();
        self.free().clear();
        closing.await;
    }

    fn free(&self) -> MutexGuard<'_, Vec<(Lent, Instant)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Closes it when it is dropped.
    pub(crate) fn close_on_drop(&mut self) {
        self.connection.close_on_drop();
    }
}

impl Deref for Lent {
    type Target = sqlx::PgConnection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    async fn backend(lent: &mut Lent) -> i32 {
        let pid = sqlx::query_scalar("select pg_backend_pid()");
        pid.fetch_one(&mut **lent).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_used_again_and_closed_with_the_others() {
        let fixture = Fixture::new().await;
        let kept = Kept::of(fixture.pool.clone());
        let (mut one, mut other) = (kept.acquire().await.unwrap(), kept.acquire().await.unwrap());
        let (first, second) = (backend(&mut one).await, backend(&mut other).await);
        assert_ne!(first, second);
        kept.keep(one);
        let mut again = kept.acquire().await.unwrap();
        assert_eq!(backend(&mut again).await, first);
        kept.keep(again);

        // One is free, one in use until the pool is closed.
        let closing = tokio::time::timeout(Duration::from_secs(20), kept.close());
        let using = async {
            assert!(kept.pool.is_closed());
            assert!(kept.acquire().await.is_err());
            kept.keep(other);
        };
        let (closed, ()) = tokio::join!(closing, using);
        closed.unwrap();
        assert_eq!(fixture.pool.size(), 0);
    }

    #[tokio::test]
    async fn what_is_old_or_was_idle_for_long_is_not_used_again() {
        let fixture = Fixture::new().await;
        let kept = Kept::of(fixture.pool.clone());
        let used = Instant::now();
        kept.keep(kept.acquire().await.unwrap());
        assert!(kept.take(used + IDLE + Duration::from_secs(60)).is_none());
        assert!(kept.free().is_empty());

        let of_old = Kept {
            life: Duration::ZERO,
            ..kept.clone()
        };
        of_old.keep(of_old.acquire().await.unwrap());
        assert!(of_old.take(Instant::now()).is_none());
        kept.close().await;
    }
}
