//! Connections that few use, again and again, and that therefore never go back to their pool.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use super::acquire;

/// Connections that are kept by whoever used them last. What goes back to its pool is asked first whether it lives: a round trip and a
/// task behind every commit, which at 1,000 sends/s is one for each send.
///
/// No more may be used at once than the pool has: nobody is told when a kept one is free again.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pool: PgPool,
    free: Arc<Mutex<Vec<PoolConnection<Postgres>>>>,
}

impl Kept {
    /// None is open yet.
    pub(crate) fn of(pool: PgPool) -> Self {
        Self {
            pool,
            free: Arc::default(),
        }
    }

    /// A free connection, or a new one.
    ///
    /// # Errors
    /// As [`acquire`].
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let free = self.free().pop();
        match free {
            Some(connection) => Ok(connection),
            None => acquire(&self.pool).await,
        }
    }

    /// Keeps a connection on which nothing is left undone. Any other is to be dropped, so that its pool looks after it.
    pub(crate) fn keep(&self, connection: PoolConnection<Postgres>) {
        let mut free = self.free();
        if !self.pool.is_closed() {
            free.push(connection);
        }
    }

    /// Closes all; waits for those that are used.
    pub(crate) async fn close(&self) {
        // From its call on the pool is closed, so that nothing is kept behind the clearing.
        let closing = self.pool.close();
        self.free().clear();
        closing.await;
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Fixture;

    async fn backend(connection: &mut PoolConnection<Postgres>) -> i32 {
        let pid = sqlx::query_scalar("select pg_backend_pid()");
        pid.fetch_one(&mut **connection).await.unwrap()
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
}
