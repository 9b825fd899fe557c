//! What is revoked: refused by every gateway, closed where it is open. Told by broadcast and bucket at once, read from
//! a worker at the start, on a period and after every break.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use confab_auth::Caller;
use confab_bus::Bus;
use confab_bus::revocations::{RevocationUpdate, watch_revocations};
use confab_protocol::condition::Monitor;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::SessionId;
use confab_protocol::query::{Answer, Query};
use confab_protocol::revocation::{Lifetimes, Revocation};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::conditions::REVOCATIONS_CONDITION;
use crate::metrics::RevocationMetrics;
use crate::sessions::Sessions;
use crate::workers::WorkerClient;

mod set;

use set::RevocationSet;

/// What was heard and not yet taken.
const CHANNEL_CAPACITY: usize = 256;
/// How soon a reading that failed is tried again: a gateway that begins beside its workers is ready no sooner.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How much sooner than revocations of sessions expire a gateway that reads none is taken to have missed some.
const MISSED_MARGIN: Duration = Duration::from_secs(300);
/// How often what has expired is forgotten.
const EXPIRY_PERIOD: Duration = Duration::from_secs(10);

/// What is revoked, and the open sessions that it closes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Revocations {
    set: Arc<RwLock<RevocationSet>>,
    /// Whether a worker has once told all there were.
    loaded: Arc<AtomicBool>,
    sessions: Sessions,
    metrics: RevocationMetrics,
}

impl Revocations {
    /// Knows of none until [`run`] has heard and read some.
    pub(crate) fn new(sessions: Sessions, metrics: RevocationMetrics) -> Self {
        Self {
            set: Arc::default(),
            loaded: Arc::default(),
            sessions,
            metrics,
        }
    }

    /// The open sessions here.
    pub(crate) const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether a worker has told, since this gateway started, all that was revoked.
    pub(crate) fn are_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Refuses a revoked token, and every token before it is known what is revoked.
    ///
    /// # Errors
    /// `TOKEN_REVOKED`, `UNAVAILABLE`.
    pub(crate) fn check(&self, caller: &Caller) -> Result<(), Failure> {
        if self.read(|set| set.covers(caller)) {
            return Err(Failure::of(Code::TokenRevoked));
        }
        if self.are_loaded() {
            return Ok(());
        }
        let unknown = "the revocations could not be read yet";
        Err(Failure::new(Code::Unavailable, unknown).retry_after(1000))
    }

    /// Refuses an open session whose token, or which itself, is revoked. Asked once it is among the open sessions, so that
    /// no revocation slips between the check and its place there.
    ///
    /// # Errors
    /// `TOKEN_REVOKED`.
    pub(crate) fn check_session(&self, caller: &Caller, session: SessionId) -> Result<(), Failure> {
        let covered = self.read(|set| {
            set.covers(caller) || set.covers_session(&caller.tenant, &caller.user, session)
        });
        if covered {
            Err(Failure::of(Code::TokenRevoked))
        } else {
            Ok(())
        }
    }

    /// Takes a revocation and closes the sessions here that it covers.
    pub(crate) fn apply(&self, revocation: &Revocation) {
        let is_new = {
            let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
            let is_new = set.apply(revocation);
            self.metrics.known(set.len());
            is_new
        };
        // What was known has closed its sessions, and let none in since.
        if is_new {
            let closed = self.sessions.close_revoked(revocation);
            if closed > 0 {
                info!(tenant = %revocation.tenant, closed, "sessions were revoked");
            }
        }
    }

    /// Forgets what has expired, in steps: every token check waits for the lock that each step takes.
    async fn expire(&self, now: OffsetDateTime) {
        while self.expire_some(now) {
            tokio::task::yield_now().await;
        }
    }

    fn expire_some(&self, now: OffsetDateTime) -> bool {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        let more = set.expire(now);
        self.metrics.known(set.len());
        more
    }

    fn read<T>(&self, look: impl FnOnce(&RevocationSet) -> T) -> T {
        look(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hears and reads until `stop`.
pub(crate) async fn run(
    revocations: Revocations,
    bus: Bus,
    commands: WorkerClient,
    lifetimes: Lifetimes,
    stop: CancellationToken,
) {
    let both = Box::pin(async {
        let (gateway, heard) = mpsc::channel(CHANNEL_CAPACITY);
        let keeper = Keeper {
            revocations,
            commands,
            lifetimes,
            after: 0,
            reading: FuturesUnordered::new(),
            reading_pages: Monitor::new(REVOCATIONS_CONDITION),
            began: Instant::now(),
            known: None,
            again: false,
        };
        tokio::join!(watch_revocations(&bus, gateway), keeper.keep(heard));
    });
    stop.run_until_cancelled(both).await;
}

type Page = Result<(Vec<Revocation>, bool), Failure>;

/// Takes what is heard at once, while it reads from a worker: page after page, one reading at a time.
struct Keeper {
    revocations: Revocations,
    commands: WorkerClient,
    reading_pages: Monitor,
    /// For how long this gateway needs revocations.
    lifetimes: Lifetimes,
    /// The last revision that a worker has told.
    after: u64,
    /// When the reading began that is under way.
    began: Instant,
    /// Up to when all that was revoked is known.
    known: Option<Instant>,
    /// The reading under way.
    reading: FuturesUnordered<BoxFuture<'static, Page>>,
    /// Whether another reading is due behind it: what made it due came after the reading began.
    again: bool,
}

impl Keeper {
    async fn keep(mut self, mut heard: mpsc::Receiver<RevocationUpdate>) {
        let mut expiry = interval(EXPIRY_PERIOD);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                item = heard.recv() => match item {
                    Some(item) => self.hear(item),
                    None => return,
                },
                Some(page) = self.reading.next() => self.read(page),
                _ = expiry.tick() => self.revocations.expire(OffsetDateTime::now_utc()).await,
            }
        }
    }

    fn hear(&mut self, item: RevocationUpdate) {
        match item {
            RevocationUpdate::Revoked(revocation) => self.revocations.apply(&revocation),
            RevocationUpdate::ReadAgain if self.reading.is_empty() => self.begin_anew(),
            RevocationUpdate::ReadAgain => self.again = true,
            RevocationUpdate::Malformed => {
                if self.revocations.metrics.malformed() {
                    warn!("a message is no revocation of ours; such are skipped and counted");
                }
            }
        }
    }

    fn read(&mut self, page: Page) {
        match page {
            Ok((revocations, more)) => {
                self.reading_pages.holds();
                for revocation in &revocations {
                    self.revocations.apply(revocation);
                    self.after = self.after.max(revocation.revision);
                }
                if more && !revocations.is_empty() {
                    self.begin(Duration::ZERO);
                    return;
                }
                self.loaded();
                if std::mem::take(&mut self.again) {
                    self.begin_anew();
                }
            }
            Err(failure) => {
                // While NATS is away that is told instead, once.
                if self.commands.is_connected() {
                    self.reading_pages.failed_for(&failure);
                }
                self.begin(RETRY_DELAY);
            }
        }
    }

    fn begin_anew(&mut self) {
        self.began = Instant::now();
        self.begin(Duration::ZERO);
    }

    /// A reading has come to the end of what there is.
    fn loaded(&mut self) {
        if let Some(known) = self.known.replace(self.began)
            && has_missed_some(known, self.began, self.lifetimes)
        {
            let closed = self.revocations.sessions.close_all();
            warn!(
                closed,
                "this gateway was cut off for longer than revocations of sessions are kept: all of its sessions end"
            );
        }
        if !self.revocations.loaded.swap(true, Ordering::Release) {
            let known = self.revocations.read(RevocationSet::len);
            info!(known, "the revocations were read");
        }
    }

    fn begin(&self, delay: Duration) {
        let (commands, after) = (self.commands.clone(), self.after);
        let lifetimes = Some(self.lifetimes);
        self.reading.push(Box::pin(async move {
            sleep(delay).await;
            let id = Uuid::now_v7().to_string();
            match commands
                .query(id, None, Query::Revocations { after, lifetimes })
                .await?
            {
                Answer::Revocations { revocations, more } => Ok((revocations, more)),
                _ => Err(Failure::of(Code::Internal)),
            }
        }));
    }
}

/// Whether a session's revocation may have expired unheard: all were known at `known`, and then not until `now`.
fn has_missed_some(known: Instant, now: Instant, lifetimes: Lifetimes) -> bool {
    let kept = Duration::from_secs(lifetimes.session_seconds);
    now.duration_since(known) > kept.saturating_sub(MISSED_MARGIN)
}

#[cfg(test)]
mod tests;
