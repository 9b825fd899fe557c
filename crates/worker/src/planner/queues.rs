//! Commands that wait, by log and owner: who is ready, what is taken, and what waits apart for a lock. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use confab_protocol::fair::{FairQueue, Owner, Slots};
use confab_protocol::ids::ConversationId;
use rustc_hash::FxHashMap;

use super::{Item, Kind};

/// After how long what was locked is tried again: at least, at most the first time, and at most from then on.
const MIN_RETRY_DELAY_MS: u64 = 5;
const FIRST_RETRY_DELAY_MS: u64 = 15;
const MAX_RETRY_DELAY_MS: u64 = 50;
/// From when on a log that was locked waits for its lock: skipped so often, or for so long.
const MAX_SKIPS: u32 = 2;
const MAX_SKIPPED_TIME: Duration = Duration::from_millis(20);

/// Whose order a command has its place in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LogKey {
    /// A conversation's log, as the tenant of this hash asks for it: who names a foreign one stands in no member's way.
    Conversation(ConversationId, u64),
    /// None: the command names no conversation, and keeps no order.
    Own(u64),
}

/// What waits of one owner in one log.
#[derive(Debug)]
struct Queue<J> {
    items: VecDeque<Item<J>>,
    bytes: usize,
    turn: Turn,
    /// Since when it waits for its turn in its log, counted in turns.
    since: u64,
}

/// Among which queues a queue has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    None,
    Sends,
    Singles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Something of it is carried out.
    Busy,
    /// It was locked, and waits apart until its time comes.
    Postponed,
    /// Something of it is carried out by waiting for its lock; what is left waits apart.
    Waiting,
}

#[derive(Debug)]
struct Log<J> {
    state: State,
    queues: FxHashMap<Owner, Queue<J>>,
    skips: u32,
    skipped_since: Option<Instant>,
    /// What ran last went alone: sends that wait go first.
    ran_alone: bool,
    /// Queues that have their turn among the sends, and among the others.
    ready_sends: usize,
    ready_singles: usize,
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Queues<J> {
    logs: FxHashMap<LogKey, Log<J>>,
    /// Queues of free logs that begin with a send, and those that begin with another command.
    sends: FairQueue<LogKey>,
    singles: FairQueue<LogKey>,
    /// Of what is ready to be sent, about: logs that are busy meanwhile count.
    ready: Amount,
    timers: BTreeSet<(Instant, LogKey)>,
    jitter: u64,
    /// Counts turns.
    turns: u64,
}

/// Commands and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    pub(super) const fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    pub(super) const fn sub(&mut self, other: Self) {
        self.events -= other.events;
        self.bytes -= other.bytes;
    }
}

impl<J> Default for Queues<J> {
    fn default() -> Self {
        Self {
            logs: FxHashMap::default(),
            sends: FairQueue::default(),
            singles: FairQueue::default(),
            ready: Amount::default(),
            timers: BTreeSet::new(),
            jitter: 0,
            turns: 0,
        }
    }
}

impl<J> Queues<J> {
    /// How much is ready to be sent.
    pub(super) const fn ready(&self) -> Amount {
        self.ready
    }

    /// Whether a log waits apart, for its lock.
    pub(super) fn is_apart(&self, key: LogKey) -> bool {
        let log = self.logs.get(&key);
        log.is_some_and(|log| matches!(log.state, State::Postponed | State::Waiting))
    }

    /// Whether a log was locked when it was tried last.
    pub(super) fn is_suspect(&self, key: LogKey) -> bool {
        self.logs.get(&key).is_some_and(|log| log.skips > 0)
    }

    /// How much of an owner waits in a log.
    pub(super) fn of_owner(&self, key: LogKey, owner: &Owner) -> Amount {
        let queue = self.logs.get(&key).and_then(|log| log.queues.get(owner));
        queue.map_or_else(Amount::default, Queue::amount)
    }

    pub(super) fn push_back(&mut self, key: LogKey, item: Item<J>) {
        let log = self.logs.entry(key).or_insert_with(Log::new);
        let owner = item.owner.clone();
        let queue = log.queues.entry(owner.clone()).or_insert_with(Queue::new);
        if queue.turn == Turn::Sends {
            self.ready.add(item.amount());
        }
        if queue.items.is_empty() {
            self.turns += 1;
            queue.since = self.turns;
        }
        let is_send = item.kind.is_send();
        queue.bytes += item.bytes;
        queue.items.push_back(item);
        let is_first = queue.turn == Turn::None && queue.items.len() == 1;
        if is_first && log.state == State::Free && (is_send || log.allows_single()) {
            self.make_ready(key, &owner);
        }
    }

    /// Gives a queue its turn; by its first command it is one of two kinds.
    fn make_ready(&mut self, key: LogKey, owner: &Owner) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        let Some(queue) = log.queues.get_mut(owner) else {
            return;
        };
        match queue.items.front() {
            Some(front) if front.kind.is_send() => {
                queue.turn = Turn::Sends;
                log.ready_sends += 1;
                self.ready.add(queue.amount());
                self.sends.push(owner, key);
            }
            Some(_) => {
                queue.turn = Turn::Singles;
                log.ready_singles += 1;
                self.singles.push(owner, key);
            }
            None => {}
        }
    }

    /// The next queue of a free log, or of one in `ours`, that begins with a send, of an owner that may have more in the batch.
    pub(super) fn next_sends(
        &mut self,
        parts: &Slots,
        ours: impl Fn(LogKey) -> bool,
    ) -> Option<(LogKey, Owner)> {
        while let Some((owner, key)) = self.sends.pop_for(parts) {
            if self.takes_turn(key, &owner, &ours, true) {
                return Some((key, owner));
            }
        }
        None
    }

    /// Ends a queue's turn; says whether something can be taken of it. Where its log is busy it gets another once that is free.
    fn takes_turn(
        &mut self,
        key: LogKey,
        owner: &Owner,
        ours: impl Fn(LogKey) -> bool,
        wants_send: bool,
    ) -> bool {
        let Some(log) = self.logs.get_mut(&key) else {
            return false;
        };
        let Some(queue) = log.queues.get_mut(owner) else {
            return false;
        };
        match queue.turn {
            Turn::Sends => {
                self.ready.sub(queue.amount());
                log.ready_sends -= 1;
            }
            Turn::Singles => log.ready_singles -= 1,
            Turn::None => {}
        }
        queue.turn = Turn::None;
        if log.state != State::Free && !ours(key) {
            return false;
        }
        let is_send = queue.items.front().map(|front| front.kind.is_send());
        if is_send == Some(wants_send) {
            return true;
        }
        self.put_back(key, owner);
        false
    }

    /// The next queue of a free log that begins with another command, of an owner that may take a slot.
    pub(super) fn next_single(&mut self, slots: &Slots) -> Option<(LogKey, Owner)> {
        while let Some((owner, key)) = self.singles.pop_for(slots) {
            if self.takes_turn(key, &owner, |_| false, false) {
                return Some((key, owner));
            }
        }
        None
    }

    /// Takes an owner's first command in a log where `wants` it.
    pub(super) fn pop_if(
        &mut self,
        key: LogKey,
        owner: &Owner,
        wants: impl FnOnce(&Item<J>) -> bool,
    ) -> Option<Item<J>> {
        let queue = self.logs.get_mut(&key)?.queues.get_mut(owner)?;
        let item = queue.items.pop_front_if(|item| wants(item))?;
        queue.bytes -= item.bytes;
        if queue.turn == Turn::Sends {
            self.ready.sub(item.amount());
        }
        Some(item)
    }

    /// Puts a queue of which something was taken, and a log of which nothing is carried out, back to their turn.
    pub(super) fn put_back(&mut self, key: LogKey, owner: &Owner) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        match log.queues.get(owner) {
            Some(queue) if queue.items.is_empty() && queue.turn == Turn::None => {
                log.queues.remove(owner);
            }
            Some(queue) if queue.turn == Turn::None && log.state == State::Busy => {
                self.make_ready(key, owner);
            }
            _ => {}
        }
        self.give_turns(key);
        self.forget_idle(key);
    }

    /// Gives the queues of a free log their turns: all that begin with a send, and one of the others, that has waited for longest.
    fn give_turns(&mut self, key: LogKey) {
        let Some(log) = self.logs.get(&key) else {
            return;
        };
        if log.state != State::Free {
            return;
        }
        let (mut sends, mut single) = (Vec::new(), None);
        for (owner, queue) in &log.queues {
            match queue.items.front() {
                Some(front) if queue.turn == Turn::None && front.kind.is_send() => {
                    sends.push(owner.clone());
                }
                Some(_) if queue.turn == Turn::None => {
                    let earlier = |(since, _): &(u64, &Owner)| *since <= queue.since;
                    single = single.filter(earlier).or(Some((queue.since, owner)));
                }
                _ => {}
            }
        }
        let single = single.map(|(_, owner)| owner.clone());
        for owner in &sends {
            self.make_ready(key, owner);
        }
        let allows = self.logs.get(&key).is_some_and(Log::allows_single);
        if let Some(owner) = single.filter(|_| allows) {
            self.make_ready(key, &owner);
        }
    }

    pub(super) fn charge(&mut self, owner: &Owner, item: Amount, is_send: bool) {
        let queue = if is_send {
            &mut self.sends
        } else {
            &mut self.singles
        };
        queue.charge(owner, item.events, item.bytes);
    }

    /// Sends of the log are carried out from now on.
    pub(super) fn hold(&mut self, key: LogKey) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.state = State::Busy;
            log.ran_alone = false;
        }
    }

    /// A command of the owner goes alone from now on: it has its next turn in the log behind the others.
    pub(super) fn hold_alone(&mut self, key: LogKey, owner: &Owner) {
        self.turns += 1;
        if let Some(log) = self.logs.get_mut(&key) {
            log.state = State::Busy;
            log.ran_alone = true;
            if let Some(queue) = log.queues.get_mut(owner) {
                queue.since = self.turns;
            }
        }
    }

    /// Something of a log that waits apart is carried out from now on, by waiting for its lock.
    pub(super) fn hold_waiting(&mut self, key: LogKey) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.state = State::Waiting;
        }
    }

    /// Nothing of the log is carried out any more: its queues have their turns again. It was not locked.
    pub(super) fn release(&mut self, key: LogKey) {
        if let Some(log) = self.logs.get_mut(&key) {
            log.skips = 0;
            log.skipped_since = None;
        }
        self.free(key);
    }

    /// Puts commands that were locked back before the others of their owners, and the log apart.
    pub(super) fn postpone(&mut self, key: LogKey, items: Vec<Item<J>>, now: Instant) {
        let delay = self.retry_delay(key);
        let log = self.logs.entry(key).or_insert_with(Log::new);
        for item in items.into_iter().rev() {
            let queue = log.queues.entry(item.owner.clone());
            let queue = queue.or_insert_with(Queue::new);
            if queue.turn == Turn::Sends {
                self.ready.add(item.amount());
            }
            queue.bytes += item.bytes;
            queue.items.push_front(item);
        }
        log.skips += 1;
        log.skipped_since.get_or_insert(now);
        let until = now + delay;
        log.state = State::Postponed;
        self.timers.insert((until, key));
    }

    /// When the next log that waits apart is to be tried.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next log whose time has come: to be carried out by waiting for its lock, or freed.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Due> {
        let key = self.timers.first().filter(|(at, _)| *at <= now)?.1;
        self.timers.pop_first();
        let log = self.logs.get(&key)?;
        let waits_long = log
            .skipped_since
            .is_some_and(|since| now.duration_since(since) >= MAX_SKIPPED_TIME);
        Some(Due {
            key,
            is_contended: log.skips >= MAX_SKIPS || waits_long,
        })
    }

    /// Owners with something in the log, who has waited for longest first.
    pub(super) fn owners(&self, key: LogKey) -> Vec<Owner> {
        let queues = self.logs.get(&key).map(|log| log.queues.iter());
        let queues = queues.into_iter().flatten();
        let waiting = queues.filter(|(_, queue)| !queue.items.is_empty());
        let mut owners: Vec<_> = waiting.map(|(owner, queue)| (queue.since, owner)).collect();
        owners.sort_unstable_by_key(|(since, _)| *since);
        owners.into_iter().map(|(_, owner)| owner.clone()).collect()
    }

    /// Whether nothing waits, and nothing is remembered of what did.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.timers.is_empty() && self.ready == Amount::default()
    }

    /// What waits in a log.
    pub(super) fn items(&self, key: LogKey) -> impl Iterator<Item = &Item<J>> {
        let log = self.logs.get(&key);
        let queues = log.into_iter().flat_map(|log| log.queues.values());
        queues.flat_map(|queue| queue.items.iter())
    }

    /// Gives the queues of a log their turns, however often it was locked.
    pub(super) fn free(&mut self, key: LogKey) {
        let Some(log) = self.logs.get_mut(&key) else {
            return;
        };
        log.state = State::Free;
        log.queues
            .retain(|_, queue| !queue.items.is_empty() || queue.turn != Turn::None);
        self.give_turns(key);
        self.forget_idle(key);
    }

    fn forget_idle(&mut self, key: LogKey) {
        let log = self.logs.get(&key);
        if log.is_some_and(|log| log.state == State::Free && log.queues.is_empty()) {
            self.logs.remove(&key);
        }
    }

    /// Between the bounds, different for each log and try, so that workers that want the same row do not meet again.
    fn retry_delay(&mut self, key: LogKey) -> Duration {
        use std::hash::BuildHasher as _;
        self.jitter = self.jitter.wrapping_add(1);
        let hash = rustc_hash::FxBuildHasher.hash_one((key, self.jitter));
        let is_first = self.logs.get(&key).is_none_or(|log| log.skips == 0);
        let most = if is_first {
            FIRST_RETRY_DELAY_MS
        } else {
            MAX_RETRY_DELAY_MS
        };
        let span = most - MIN_RETRY_DELAY_MS;
        Duration::from_millis(MIN_RETRY_DELAY_MS + (hash >> 32) % (span + 1))
    }
}

/// A log that waited apart and is to be tried again.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: LogKey,
    /// It was locked so often, or for so long, that its lock is to be waited for.
    pub(super) is_contended: bool,
}

impl Kind {
    const fn is_send(&self) -> bool {
        matches!(self, Self::Send(..))
    }
}

impl<J> Item<J> {
    /// What it counts.
    pub(crate) const fn amount(&self) -> Amount {
        Amount {
            events: 1,
            bytes: self.bytes,
        }
    }
}

impl<J> Log<J> {
    fn new() -> Self {
        Self {
            state: State::Free,
            queues: FxHashMap::default(),
            skips: 0,
            skipped_since: None,
            ran_alone: false,
            ready_sends: 0,
            ready_singles: 0,
        }
    }

    /// Whether a command that goes alone may have its turn: one at a time, and behind sends that waited while another went alone.
    const fn allows_single(&self) -> bool {
        self.ready_singles == 0 && !(self.ran_alone && self.ready_sends > 0)
    }
}

impl<J> Queue<J> {
    fn new() -> Self {
        Self {
            // Mostly one waits.
            items: VecDeque::with_capacity(1),
            bytes: 0,
            turn: Turn::None,
            since: 0,
        }
    }

    fn amount(&self) -> Amount {
        Amount {
            events: self.items.len(),
            bytes: self.bytes,
        }
    }
}
