//! Which workers live, as they said lately, what their clocks show, and which of them a conversation goes to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Message;
use bytes::Bytes;
use confab_protocol::command::SentAfter;
use confab_protocol::condition::Monitor;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Target, WorkerId};
use crate::conditions::WORKERS_CONDITION;
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects;

/// Interval at which a worker says that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// A worker with an older heartbeat is picked only if all are that old: two heartbeats may be late.
const LATE_HEARTBEAT_AGE: Duration = Duration::from_millis(600);
/// Who has not for this long is not picked.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval at which it is looked whether a worker that is asked something is still punctual.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which it is looked whether any worker is heard of, for the log.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which none may be heard of until that is told: a gateway and all workers may just have come back to NATS, each when it pleases.
const MAX_SILENCE: Duration = Duration::from_secs(6);
/// More would be a flood of strangers, not workers.
const MAX_WORKERS: usize = 4096;
/// A worker that stands still may be sent to for as long as NATS keeps its connection: so long its clock is kept.
const CLOCK_KEPT: Duration = Duration::from_secs(600);
/// So long the announcement that came fastest counts; a later one is better by then.
const CLOCK_AGE: Duration = Duration::from_secs(60);
/// Clocks run apart by less than one part in so many.
const CLOCK_DRIFT: u32 = 1000;
/// Clocks told with a message: those of the workers heard of last.
const MAX_CLOCKS: usize = 64;

/// The workers heard of lately.
#[derive(Debug)]
pub struct Workers {
    bus: Bus,
    heard: Mutex<Vec<LastHeartbeat>>,
    any: watch::Sender<bool>,
}

/// The liveness of a worker, as far as its heartbeats tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It said lately that it lives, or all are late.
    Punctual,
    /// It is late with saying so, and another is not.
    Late,
    /// It has not said so for long, or never.
    Silent,
}

#[derive(Debug)]
struct LastHeartbeat {
    id: WorkerId,
    at: Instant,
    /// It was not there when it was asked, and has not said since that it lives.
    gone: bool,
    clock: Clock,
}

/// What a worker's clock showed, and when that was heard.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ms: u64,
    heard: Instant,
}

impl Clock {
    /// Returns what the worker's clock shows now, at least: more by as long as the announcement was on its way.
    fn least(self, now: Instant) -> u64 {
        let held = now.saturating_duration_since(self.heard);
        let held = held.saturating_sub(held / CLOCK_DRIFT);
        let held = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        self.ms.saturating_add(held)
    }
}

impl Workers {
    /// Knows of none until [`Self::run`] has heard of some.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            heard: Mutex::new(Vec::new()),
            any: watch::Sender::new(false),
        }
    }

    /// Listens to the workers until `stop`.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BusError> {
        let subscribe = async |subject: &'static str| {
            let subscribed = self.bus.client.subscribe(subject).await;
            subscribed.map_err(BusError::nats("listen to the workers"))
        };
        let lives = subscribe(subjects::WORKER_HEARTBEAT_SUBJECT).await?;
        let leaves = subscribe(subjects::WORKER_LEAVING_SUBJECT).await?;
        let mut messages = stream::select(lives, leaves);
        let monitor = Monitor::new(WORKERS_CONDITION);
        // From the start or the last break of NATS on workers have as long to say that they live as later.
        let mut silence_counts_from = Instant::now();
        let mut looks = interval(WATCH_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                message = messages.next() => match message {
                    Some(message) => self.take(&message),
                    None => return Ok(()),
                },
                _ = looks.tick() => {
                    if !self.bus.is_connected() {
                        silence_counts_from = Instant::now();
                    } else if self.has_others(1, &[]) {
                        monitor.holds();
                    } else if silence_counts_from.elapsed() >= MAX_SILENCE {
                        monitor.failed_for(&format_args!("none said within {HEARTBEAT_TIMEOUT:?} that it lives"));
                    }
                }
            }
        }
    }

    fn take(&self, message: &Message) {
        if message.subject.as_str() == subjects::WORKER_LEAVING_SUBJECT {
            if let Some(worker) = left(&message.payload) {
                self.forget(worker);
            }
        } else if let Some((worker, ms)) = announced(&message.payload) {
            self.note(worker, ms, Instant::now());
        }
    }

    /// Waits until a worker was heard of, for so long at most. Only who has just begun waits.
    pub async fn heard_of_one(&self, within: Duration) {
        let mut any = self.any.subscribe();
        drop(tokio::time::timeout(within, any.wait_for(|any| *any)).await);
    }

    /// The worker of a conversation, or of whatever else has a key: every gateway that heard the same picks the same, by
    /// rendezvous hashing. Those in `not` have just failed it.
    #[must_use]
    pub fn pick(&self, key: impl Hash, not: &[WorkerId]) -> Target {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let best = |within: Duration| {
            let alive = heard
                .iter()
                .filter(|one| one.is_alive(now, within) && !not.contains(&one.id));
            alive.max_by_key(|one| (weight(&key, one.id), one.id))
        };
        let best = best(LATE_HEARTBEAT_AGE).or_else(|| best(HEARTBEAT_TIMEOUT));
        best.map_or(Target::Any, |one| Target::Worker(one.id))
    }

    /// Returns true if so many workers besides those in `not` said lately that they live.
    #[must_use]
    pub fn has_others(&self, count: usize, not: &[WorkerId]) -> bool {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let others = heard
            .iter()
            .filter(|one| one.is_alive(now, HEARTBEAT_TIMEOUT) && !not.contains(&one.id));
        others.count() >= count
    }

    /// Returns whether a worker lives, as far as it was heard of, also where it was not there for something since.
    #[must_use]
    pub fn liveness(&self, worker: WorkerId) -> Liveness {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let one = heard.iter().find(|one| one.id == worker);
        let silence = one.map(|one| now.saturating_duration_since(one.at));
        let silence = silence.filter(|silence| *silence < HEARTBEAT_TIMEOUT);
        let other = |one: &LastHeartbeat| one.id != worker && one.is_alive(now, LATE_HEARTBEAT_AGE);
        match silence {
            None => Liveness::Silent,
            Some(silence) if silence >= LATE_HEARTBEAT_AGE && heard.iter().any(other) => {
                Liveness::Late
            }
            Some(_) => Liveness::Punctual,
        }
    }

    /// Waits until a worker no longer says that it lives, while another does. Never ends for [`Target::Any`].
    pub async fn outlived(&self, target: Target) {
        let Target::Worker(worker) = target else {
            return std::future::pending().await;
        };
        while self.liveness(worker) == Liveness::Punctual || !self.has_others(1, &[worker]) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// A worker was not there, or leaves: it is not picked again until it says that it lives.
    pub fn forget(&self, worker: WorkerId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for one in heard.iter_mut().filter(|one| one.id == worker) {
            one.gone = true;
        }
    }

    /// When a message that goes now was sent at the earliest, by the clock of each worker that may read it.
    #[must_use]
    pub fn sent_now(&self) -> Vec<SentAfter> {
        let now = Instant::now();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clocks: Vec<_> = heard
            .iter()
            .map(|one| (one.at, one.id, one.clock))
            .collect();
        drop(heard);
        clocks.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
        clocks.truncate(MAX_CLOCKS);
        let sent = |(_, id, clock): (Instant, WorkerId, Clock)| SentAfter {
            worker: id.0,
            ms: clock.least(now),
        };
        clocks.into_iter().map(sent).collect()
    }

    fn note(&self, worker: WorkerId, ms: u64, now: Instant) {
        let clock = Clock { ms, heard: now };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = heard.iter_mut().find(|one| one.id == worker) {
            (one.at, one.gone) = (now, false);
            let is_old = now.saturating_duration_since(one.clock.heard) > CLOCK_AGE;
            // One that was long on its way would have all seem sent long ago.
            if is_old || ms >= one.clock.least(now) {
                one.clock = clock;
            }
            return;
        }
        heard.retain(|one| now.saturating_duration_since(one.at) < CLOCK_KEPT);
        if heard.len() < MAX_WORKERS {
            heard.push(LastHeartbeat {
                id: worker,
                at: now,
                gone: false,
                clock,
            });
            drop(heard);
            self.any.send_replace(true);
        }
    }
}

impl LastHeartbeat {
    fn is_alive(&self, now: Instant, within: Duration) -> bool {
        !self.gone && now.saturating_duration_since(self.at) < within
    }
}

/// Returns what a worker says every [`HEARTBEAT_INTERVAL`]: its id, and how many milliseconds it has lived.
pub(super) fn announcement(worker: WorkerId, clock: Duration) -> Bytes {
    let ms = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
    let mut payload = Vec::from(*worker.0.as_bytes());
    payload.extend(ms.to_be_bytes());
    payload.into()
}

fn announced(payload: &[u8]) -> Option<(WorkerId, u64)> {
    let (id, ms) = payload.split_first_chunk()?;
    let ms = u64::from_be_bytes(ms.try_into().ok()?);
    Some((WorkerId(Uuid::from_bytes(*id)), ms))
}

/// Returns what a worker says when it leaves: its id.
pub(super) fn leaving(worker: WorkerId) -> Bytes {
    Bytes::copy_from_slice(worker.0.as_bytes())
}

fn left(payload: &[u8]) -> Option<WorkerId> {
    let id = payload.try_into().ok()?;
    Some(WorkerId(Uuid::from_bytes(id)))
}

fn weight(key: &impl Hash, worker: WorkerId) -> u64 {
    // Rendezvous hashing needs a hash that mixes well: multiplicative ones favour few workers.
    let mut hasher = DefaultHasher::new();
    (key, worker).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::ConversationId;

    use super::*;

    /// Clocks whose announcements were on their way for a while: none lets a message seem younger than it is, and the fastest counts.
    #[test]
    fn clock_bound_never_runs_ahead_and_keeps_fastest() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let true_ms = |at: Instant| u64::try_from((at - began).as_millis()).unwrap();
        let mut clock: Option<Clock> = None;
        for (n, delay) in [300, 20, 4000, 250, 2].into_iter().enumerate() {
            let said = began + second * u32::try_from(n).unwrap() * 5;
            let heard = said + Duration::from_millis(delay);
            let new = Clock {
                ms: true_ms(said),
                heard,
            };
            if clock.is_none_or(|clock| new.ms >= clock.least(heard)) {
                clock = Some(new);
            }
            let least = clock.unwrap().least(heard);
            assert!(least <= true_ms(heard), "{n}: ahead");
            assert!(n == 0 || true_ms(heard) - least <= 60, "{n}: {least}");
        }
    }

    #[test]
    fn announcement_survives_wire_and_others_are_ignored() {
        let worker = WorkerId(Uuid::now_v7());
        let payload = announcement(worker, Duration::from_millis(1234));
        assert_eq!(announced(&payload), Some((worker, 1234)));
        for other in [&payload[..16], &payload[..23], &[0; 25], &[]] {
            assert_eq!(announced(other), None);
        }
        assert_eq!(left(&leaving(worker)), Some(worker));
        assert_eq!(left(&payload), None);
    }

    #[test]
    fn conversations_move_only_from_dead_worker() {
        let workers: Vec<_> = (0..4).map(|_| WorkerId(Uuid::now_v7())).collect();
        let best = |c, among: &[WorkerId]| *among.iter().max_by_key(|w| weight(&c, **w)).unwrap();
        let mut counts = [0_usize; 4];
        for _ in 0..4000 {
            let conversation = ConversationId(Uuid::now_v7());
            let all = best(conversation, &workers);
            counts[workers.iter().position(|w| *w == all).unwrap()] += 1;
            if all != workers[3] {
                assert_eq!(best(conversation, &workers[..3]), all);
            }
        }
        assert!(counts.iter().all(|n| *n > 700), "{counts:?}");
    }
}
