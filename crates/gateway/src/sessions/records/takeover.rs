//! A client comes with a token: its session is taken over from wherever it was, or it starts afresh and is told why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_auth::Caller;
use confab_bus::BusError;
use confab_bus::records::{
    Answer, Entry, Fence, Found, Ownership, Position, Put, Record, TakeOver, TokenHash,
};
use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::SessionId;
use confab_protocol::signal::PresenceStatus;
use tracing::{debug, warn};
use uuid::Uuid;

use super::decision::{TokenVerdict, judge};
use super::table::LeaseHold;
use super::token::is_same;
use super::{Records, SessionLease, Token, owner_of};
use crate::delivery::send_queue::SendQueue;

/// How often a swap that others were faster with is tried.
const MAX_SWAP_ATTEMPTS: u32 = 8;
/// How long after a failure the client may come again, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// What became of a client's token.
pub(crate) enum TakenOver {
    /// Its session goes on here.
    Resumed(Resumed),
    /// It is good for nothing, for this reason.
    Afresh(&'static str),
}

/// A session that goes on here.
pub(crate) struct Resumed {
    pub(crate) lease: SessionLease,
    /// The one that resumes it from now on.
    pub(crate) token: Token,
    /// What its record says that the client has.
    pub(crate) positions: Vec<Position>,
    /// What its user said of its presence.
    pub(crate) presence: PresenceStatus,
}

/// Whether a token resumes a record.
enum Claim {
    /// It does: this is the record to go on from.
    Good(Box<Record>, TokenVerdict),
    /// It does not.
    No(&'static str),
}

/// A client's claim to a session.
struct Claimant<'a> {
    session: SessionId,
    hash: TokenHash,
    caller: &'a Caller,
    send_queue: &'a Arc<SendQueue>,
}

impl Claimant<'_> {
    /// What the token is good for by `entry`; none where that is no answer, since a newer one may be elsewhere.
    fn claim(&self, entry: Option<&Entry>) -> Result<Claim, &'static str> {
        match entry {
            None => Err("unknown"),
            // The marker names no user: who has not its token is told the same as of a session that never was.
            Some(Entry::Ended { tokens, .. }) => {
                if tokens.iter().any(|token| is_same(token, &self.hash)) {
                    Ok(Claim::No("ended"))
                } else {
                    Err("unknown")
                }
            }
            Some(Entry::Live(record)) => match judge(record, &self.hash, self.caller) {
                verdict @ (TokenVerdict::Newest | TokenVerdict::Former) => {
                    Ok(Claim::Good(record.clone(), verdict))
                }
                TokenVerdict::Foreign => Ok(Claim::No("foreign")),
                TokenVerdict::Used => Err("used"),
                TokenVerdict::Unknown => Err("unknown"),
            },
        }
    }
}

fn entry(found: &Found) -> Option<&Entry> {
    match found {
        Found::Entry { entry, .. } => Some(entry),
        // Without its base a record says nothing of where its session goes on: it is as good as absent.
        Found::Absent | Found::Unreadable { .. } | Found::Baseless { .. } => None,
    }
}

const fn is_baseless(found: &Found) -> bool {
    matches!(found, Found::Baseless { .. })
}

fn unavailable() -> Failure {
    let away = "the records of sessions cannot be read now: the token stays good";
    Failure::new(Code::Unavailable, away).retry_after(AGAIN_MS)
}

impl Records {
    /// Takes the session of `token` over for the caller's connection, which closes by `send_queue`.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it cannot be known now; `SESSION_REPLACED` when another connection took the session over in the
    /// same moment.
    pub(crate) async fn take_over(
        &self,
        token: &str,
        caller: &Caller,
        send_queue: &Arc<SendQueue>,
    ) -> Result<TakenOver, Failure> {
        let taken = match Token::parse(token) {
            None => Ok(TakenOver::Afresh("malformed")),
            Some(token) => {
                let claimant = Claimant {
                    session: token.session(),
                    hash: token.hash(),
                    caller,
                    send_queue,
                };
                self.take_over_as(&claimant).await
            }
        };
        self.0.metrics.resume(match &taken {
            Ok(TakenOver::Resumed(_)) => "resumed",
            Ok(TakenOver::Afresh(reason)) => reason,
            Err(_) => "unavailable",
        });
        taken
    }

    async fn take_over_as(&self, claimant: &Claimant<'_>) -> Result<TakenOver, Failure> {
        // Any replica may answer first, and lag: what it does not know the leader is asked.
        let mut quick = self.0.bucket.get(claimant.session).await.ok();
        for attempt in 0..MAX_SWAP_ATTEMPTS {
            if attempt > 0 {
                backoff(attempt).await;
            }
            let (found, claim) = self.look(claimant, quick.take()).await?;
            let (record, verdict) = match claim {
                Claim::Good(record, verdict) => (record, verdict),
                Claim::No(reason) => return Ok(TakenOver::Afresh(reason)),
            };
            if verdict == TokenVerdict::Former && !self.is_let_go(claimant, &record).await {
                return Ok(TakenOver::Afresh("used"));
            }
            if verdict == TokenVerdict::Newest && self.has_ended(claimant, &record).await? {
                return Ok(TakenOver::Afresh("ended"));
            }
            if let Some(resumed) = self.swap(claimant, *record, found.revision()).await? {
                return Ok(TakenOver::Resumed(resumed));
            }
        }
        debug!(session.id = %claimant.session, "a session is taken over by too many at once");
        Err(unavailable())
    }

    /// What stands in the bucket, and what the token is good for by that; where it is good for nothing, by what gateways
    /// hold in memory: the bucket may have lost it, or gone back.
    async fn look(
        &self,
        claimant: &Claimant<'_>,
        quick: Option<Found>,
    ) -> Result<(Found, Claim), Failure> {
        if let Some(found) = quick
            && let Ok(claim @ Claim::Good(..)) = claimant.claim(entry(&found))
        {
            return Ok((found, claim));
        }
        let found = self.read(claimant.session).await?;
        self.note(&found);
        let doubt = match claimant.claim(entry(&found)) {
            Ok(claim) => return Ok((found, claim)),
            Err(doubt) => doubt,
        };
        let held = self.held(claimant).await?;
        let is_newer = held.as_ref().is_some_and(|held| {
            let kept = found.standing();
            let standing = Some(held.standing());
            standing > kept || (is_baseless(&found) && standing == kept)
        });
        let claim = if is_newer {
            claimant.claim(held.as_ref()).unwrap_or_else(Claim::No)
        } else {
            Claim::No(doubt)
        };
        Ok((found, claim))
    }

    /// What the bucket's leader holds; a bucket that is missing is made.
    pub(super) async fn read(&self, session: SessionId) -> Result<Found, Failure> {
        let failed = |error: BusError| {
            debug!(error = %chain(&error), session.id = %session, "a session's record cannot be read");
            unavailable()
        };
        match self.0.bucket.get_from_leader(session).await {
            Ok(found) => Ok(found),
            Err(BusError::NoStream) => {
                self.0.bucket.provision().await.map_err(failed)?;
                self.0.missing.notify_one();
                Ok(Found::Absent)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// What this gateway or another one has in memory: what is held here may be what another took over unheard. Where one
    /// that lives may not have been asked, it is not known.
    async fn held(&self, claimant: &Claimant<'_>) -> Result<Option<Entry>, Failure> {
        let own = self.lock().entry(claimant.session);
        if let Ok(Claim::Good(..)) = claimant.claim(own.as_ref()) {
            return Ok(own);
        }
        let Some(mut others) = self.0.gateways.all_alive() else {
            return Err(unavailable());
        };
        let id = self.0.gateways.id();
        others.retain(|gateway| *gateway != id);
        let asked = self.0.bus.held_record(claimant.session, &others).await;
        let elsewhere = asked.map_err(|error| {
            debug!(error = %chain(&error), "the gateways cannot be asked for a record");
            unavailable()
        })?;
        let held = own.into_iter().chain(elsewhere.entry);
        let held = held.max_by_key(Entry::standing);
        match claimant.claim(held.as_ref()) {
            // Who did not answer may hold a later one.
            Ok(Claim::No(_)) | Err(_) if !elsewhere.is_all => Err(unavailable()),
            _ => Ok(held),
        }
    }

    /// Whether the session ended for good, which its gateway could not write while NATS was away. Where NATS is back only since a moment
    /// that gateway is asked first, and waited for as long as it may still come.
    async fn has_ended(&self, claimant: &Claimant<'_>, record: &Record) -> Result<bool, Failure> {
        let session = claimant.session;
        if self.lock().has_finished(session, record.owner) {
            return Ok(true);
        }
        if record.gateway == self.0.gateways.id() || !self.0.gateways.are_coming_back() {
            return Ok(false);
        }
        let asked = TakeOver {
            session,
            hash: claimant.hash,
        };
        match self.0.bus.take_over(record.gateway, asked).await {
            Some(answer) => Ok(answer == Answer::Refused),
            None => Err(unavailable()),
        }
    }

    /// Whether the gateway that holds the session lets it go, for a token that was used before.
    async fn is_let_go(&self, claimant: &Claimant<'_>, record: &Record) -> bool {
        let (session, hash) = (claimant.session, claimant.hash);
        let answer = if record.gateway == self.0.gateways.id() {
            let (answer, replaced) =
                self.change(|table| table.let_go(session, &hash, Instant::now()));
            self.fenced(replaced);
            answer
        } else {
            let asked = TakeOver { session, hash };
            let answer = self.0.bus.take_over(record.gateway, asked).await;
            answer.unwrap_or(Answer::Unknown)
        };
        answer != Answer::Refused
    }

    /// Swaps the record for one that is held here; none when it is another by now.
    async fn swap(
        &self,
        claimant: &Claimant<'_>,
        before: Record,
        revision: u64,
    ) -> Result<Option<Resumed>, Failure> {
        if self.rationed(&owner_of(&before)).is_some() {
            return Err(unavailable());
        }
        let (session, former) = (claimant.session, before.gateway);
        let token = Token::new(session);
        let owner = Ownership {
            generation: before.owner.generation + 1,
            take_over: Uuid::now_v7(),
        };
        let record = Record {
            login_session: claimant.caller.login_session.clone(),
            token: token.hash(),
            former: Some(claimant.hash),
            owner,
            gateway: self.0.gateways.id(),
            ..before
        };
        self.lock()
            .taking(session, owner, [record.token, claimant.hash]);
        let taking = Taking {
            records: self,
            hold: LeaseHold {
                session,
                take_over: owner.take_over,
            },
        };
        let Some(revision) = self.store(session, &record, revision).await? else {
            return Ok(None);
        };
        let (positions, presence) = (record.positions.clone(), record.presence);
        let next = Instant::now() + self.first_put();
        let send_queue = Arc::clone(claimant.send_queue);
        let taken = self.change(|table| table.taken(session, record, revision, send_queue, next));
        drop(taking);
        let Some(replaced) = taken else {
            return Err(Failure::of(Code::SessionReplaced));
        };
        self.fenced(replaced);
        if former != self.0.gateways.id()
            && let Err(error) = self.0.bus.fence(former, Fence { session, owner }).await
        {
            debug!(error = %chain(&error), "a gateway was not told of a take-over");
        }
        Ok(Some(Resumed {
            lease: self.lease(session, owner),
            token,
            positions,
            presence,
        }))
    }

    /// Writes the record over `revision`; gives its own, or none when another stands there.
    async fn store(
        &self,
        session: SessionId,
        record: &Record,
        revision: u64,
    ) -> Result<Option<u64>, Failure> {
        let entry = Entry::Live(Box::new(record.clone()));
        match self.0.bucket.put(session, &entry, revision).await {
            Put::Stored { revision, bytes } => {
                self.charge(&owner_of(record), bytes);
                Ok(Some(revision))
            }
            Put::Refused => Ok(None),
            Put::Full => Err(unavailable()),
            Put::Unknown(error) => {
                warn!(error = %chain(&error), session.id = %session, "a take-over has no answer: its record is read again");
                let found = self.read(session).await?;
                let stands = found.standing() == Some(record.owner);
                Ok(stands.then(|| found.revision()))
            }
        }
    }

    fn first_put(&self) -> Duration {
        (self.0.window / 3).mul_f64(rand::random())
    }
}

/// A take-over on its way: forgotten when it is over, however it ends.
struct Taking<'a> {
    records: &'a Records,
    hold: LeaseHold,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.records.lock().not_taken(self.hold);
    }
}

async fn backoff(attempt: u32) {
    let most = Duration::from_millis(10) * attempt;
    tokio::time::sleep(most.mul_f64(rand::random())).await;
}
