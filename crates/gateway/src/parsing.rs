//! What is large is parsed in turn and beside everything else, so that it holds up nothing but itself.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use tokio::task::spawn_blocking;
use tracing::error;

use crate::permits::FairPermits;

/// Up to here parsing takes less than handing it over to another thread is worth.
const SMALL_BYTES: usize = 64 * 1024;
/// One processor in so many parses what is large.
const PROCESSORS_SHARE: usize = 2;

/// Turns for parsing, by tenant and user. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Parsing(Arc<FairPermits>);

impl Default for Parsing {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self(FairPermits::new(processors.div_ceil(PROCESSORS_SHARE)))
    }
}

/// Whether so many bytes are parsed at once, without a turn.
pub(crate) const fn is_small(bytes: usize) -> bool {
    bytes <= SMALL_BYTES
}

impl Parsing {
    /// Parses an owner's text of so many bytes: at once where it is small, else in its turn on a thread of its own.
    ///
    /// # Errors
    /// When the parser panicked.
    pub(crate) async fn parse<S: Send + 'static, T: Send + 'static>(
        &self,
        owner: &Owner,
        (text, bytes): (S, usize),
        parse: impl FnOnce(&S) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if is_small(bytes) {
            return Ok(parse(&text));
        }
        let turn = self.0.acquire(owner).await;
        let turn = turn.map_err(|_gone| Failure::of(Code::Internal))?;
        let parsing = spawn_blocking(move || {
            let parsed = parse(&text);
            drop(turn);
            (parsed, text)
        });
        let (parsed, text) = parsing.await.map_err(|panicked| {
            error!(error = %chain(&panicked), "a parser died");
            Failure::of(Code::Internal)
        })?;
        // Not over there: an allocator gives back late what another thread has freed.
        drop(text);
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    fn owner(user: &str) -> Owner {
        Owner {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn small_text_waits_for_no_large_one() {
        let parsing = Parsing(FairPermits::new(1));
        let (end, ended) = mpsc::channel::<()>();
        let loud = owner("loud");
        let slow = move |_: &()| ended.recv_timeout(Duration::from_secs(30)).is_ok();
        let mut large = pin!(parsing.parse(&loud, ((), SMALL_BYTES + 1), slow));
        assert!(large.as_mut().now_or_never().is_none());
        let ann = owner("ann");
        let small = parsing.parse(&ann, ((), SMALL_BYTES), |()| 7);
        assert_eq!(small.now_or_never(), Some(Ok(7)));
        end.send(()).unwrap();
        assert_eq!(large.await, Ok(true));
    }

    #[tokio::test]
    async fn users_have_their_turns() {
        let parsing = Parsing(FairPermits::new(1));
        let (began, mut order) = tokio::sync::mpsc::unbounded_channel();
        let held = parsing.0.acquire(&owner("first")).await.unwrap();
        let mut tasks = JoinSet::new();
        let mut waiting = 0;
        for user in ["loud"; 100].into_iter().chain(["ann"]) {
            let (turns, began) = (parsing.clone(), began.clone());
            tasks.spawn(async move {
                let told = move |_: &()| began.send(user).unwrap();
                turns
                    .parse(&owner(user), ((), SMALL_BYTES + 1), told)
                    .await
                    .unwrap();
            });
            waiting += 1;
            while parsing.0.waiting() < waiting {
                tokio::task::yield_now().await;
            }
        }
        drop(held);
        let patience = Duration::from_secs(30);
        let mut before = 0;
        while timeout(patience, order.recv()).await.unwrap() != Some("ann") {
            before += 1;
        }
        // What takes no time is cheap: a turn has some thirty of it.
        assert!(before <= 40, "{before} of the loud one's went first");
        while tasks.join_next().await.is_some() {}
    }
}
