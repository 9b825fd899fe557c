//! What is large is parsed in turn and beside everything else, so that it holds up nothing but itself.

use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use rustc_hash::FxHashMap;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::error;

use crate::limits::permits::FairPermits;

/// Up to here parsing takes less than handing it over to another thread is worth.
const SMALL_BYTES: usize = 64 * 1024;
/// One processor in so many parses what is large.
const PROCESSORS_SHARE: usize = 2;

/// Bytes of large texts of one user that are parsed in a second: to receive them takes a processor as much as to parse them.
const USER_BYTES_PER_SECOND: u32 = 32 * 1024 * 1024;
/// So much of a second's may come at once.
const BURST_WINDOW: Duration = Duration::from_millis(250);
/// From so many users on it is looked whose bytes count no more.
const MANY_USERS: usize = 256;

/// Turns for parsing, by tenant and user. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Parsing {
    turns: Arc<FairPermits>,
    paces: Arc<Paces>,
}

/// When each user's bytes so far have had their time.
#[derive(Debug, Default)]
struct Paces(Mutex<FxHashMap<Owner, Instant>>);

impl Default for Parsing {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self::new(processors.div_ceil(PROCESSORS_SHARE))
    }
}

/// The time of a text among its user's: given back where nobody waits for the text any more.
struct Charge<'a> {
    paces: &'a Paces,
    owner: &'a Owner,
    time: Duration,
    wait: Duration,
}

impl<'a> Charge<'a> {
    /// Of a text of so many bytes, behind those of its user before it.
    fn of(paces: &'a Paces, owner: &'a Owner, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let time =
            Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(USER_BYTES_PER_SECOND));
        let wait = paces.take(owner, time);
        Self {
            paces,
            owner,
            time,
            wait,
        }
    }

    /// The text is parsed now: nothing is given back.
    fn keep(mut self) {
        self.time = Duration::ZERO;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.paces.give_back(self.owner, self.time);
    }
}

impl Paces {
    /// Takes so much of a user's time; says how long it waits for what was taken before.
    fn take(&self, owner: &Owner, time: Duration) -> Duration {
        let now = Instant::now();
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= MANY_USERS {
            paces.retain(|_, until| *until > now);
        }
        let until = paces.entry(owner.clone()).or_insert(now);
        let begins = now.max(*until);
        *until = begins + time;
        begins.duration_since(now).saturating_sub(BURST_WINDOW)
    }

    fn give_back(&self, owner: &Owner, time: Duration) {
        if time.is_zero() {
            return;
        }
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = paces.get_mut(owner) {
            *until = until.checked_sub(time).unwrap_or(*until);
        }
    }
}

/// Whether so many bytes are parsed at once, without a turn.
pub(crate) const fn is_small(bytes: usize) -> bool {
    bytes <= SMALL_BYTES
}

impl Parsing {
    fn new(at_once: usize) -> Self {
        Self {
            turns: FairPermits::new(at_once),
            paces: Arc::default(),
        }
    }

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
        let charge = Charge::of(&self.paces, owner, bytes);
        if !charge.wait.is_zero() {
            sleep(charge.wait).await;
        }
        let turn = self.turns.acquire(owner).await;
        let turn = turn.map_err(|_gone| Failure::of(Code::Internal))?;
        charge.keep();
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
        let parsing = Parsing::new(1);
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

    #[tokio::test(start_paused = true)]
    async fn large_texts_are_parsed_at_users_pace() {
        const BYTES_PER_MIB: usize = 1024 * 1024;
        let parsing = Parsing::new(1);
        let (loud, ann) = (owner("loud"), owner("ann"));
        let began = Instant::now();
        for number in 0..40 {
            parsing
                .parse(&loud, ((), BYTES_PER_MIB), |()| ())
                .await
                .unwrap();
            if number == 8 {
                assert_eq!(began.elapsed(), Duration::ZERO, "a burst waits for nothing");
            }
        }
        // All but the burst, and the last one, have had their time.
        assert_eq!(began.elapsed().as_millis(), (40 - 1) * 1000 / 32 - 250 + 1);
        let other = Instant::now();
        parsing
            .parse(&ann, ((), BYTES_PER_MIB), |()| ())
            .await
            .unwrap();
        assert_eq!(other.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn text_that_nobody_waits_for_takes_no_time() {
        const BYTES_PER_MIB: usize = 1024 * 1024;
        let parsing = Parsing::new(1);
        let ann = owner("ann");
        for _ in 0..9 {
            parsing
                .parse(&ann, ((), BYTES_PER_MIB), |()| ())
                .await
                .unwrap();
        }
        for _ in 0..100 {
            let given_up = pin!(parsing.parse(&ann, ((), BYTES_PER_MIB), |()| ()));
            assert!(
                given_up.now_or_never().is_none(),
                "it waits for those before it"
            );
        }
        let bob = owner("bob");
        let held = parsing.turns.acquire(&owner("first")).await.unwrap();
        for _ in 0..100 {
            let given_up = pin!(parsing.parse(&bob, ((), BYTES_PER_MIB), |()| ()));
            assert!(given_up.now_or_never().is_none(), "it waits for its turn");
        }
        drop(held);
        let began = Instant::now();
        parsing
            .parse(&bob, ((), BYTES_PER_MIB), |()| ())
            .await
            .unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        parsing
            .parse(&ann, ((), BYTES_PER_MIB), |()| ())
            .await
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(40),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test]
    async fn paces_of_many_users_are_forgotten() {
        let parsing = Parsing::new(1);
        for number in 0..10 * MANY_USERS {
            let owner = owner(&number.to_string());
            parsing.paces.take(&owner, Duration::from_nanos(1));
        }
        assert!(parsing.paces.0.lock().unwrap().len() <= MANY_USERS + 1);
    }

    #[tokio::test]
    async fn users_have_their_turns() {
        let parsing = Parsing::new(1);
        let (began, mut order) = tokio::sync::mpsc::unbounded_channel();
        let held = parsing.turns.acquire(&owner("first")).await.unwrap();
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
            while parsing.turns.waiting() < waiting {
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
